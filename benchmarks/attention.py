"""Time of focal backbones as ratios: to timm's Swin of the same size, and of fast to reference attention.

Everything is measured in one process, the candidates of a comparison in turn, and a figure is the median of
its rounds: on a shared machine seconds drift by a factor of two, ratios do not.

    python benchmarks/attention.py [--rounds 5] [--batch 8]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

import focal_lab
from focal_lab.backbones.counting import count_gmacs


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    print(f"focal-lab {focal_lab.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"matrix product 1024 x 1024: {product_rate():.0f} GMAC/s")
    tiny = {
        "swin": timm.create_model("swin_tiny_patch4_window7_224"),
        "focal": timm.create_model("focal_tiny_patch4_window7_224"),
    }
    micro = {
        "reference": timm.create_model("focal_micro_patch2_window7_28", attention="reference"),
        "fast": timm.create_model("focal_micro_patch2_window7_28"),
        "swin": timm.create_model("focal_swin_micro_patch2_window7_28"),
    }
    for title, models, batch, size, rounds in (
        ("Focal-T / swin_tiny, 224 px", tiny, options.batch, 224, options.rounds),
        ("micro, 28 px", micro, 64, 28, 4 * options.rounds),
    ):
        first = next(iter(models))
        gmacs = {name: count_gmacs(model, (size, size)) for name, model in models.items()}
        for what, measured in (
            ("inference", {name: forward(model, batch, size) for name, model in models.items()}),
            ("training step", {name: training_step(model, batch, size) for name, model in models.items()}),
        ):
            seconds = interleaved(measured, rounds)
            for name in list(models)[1:]:
                print(
                    f"{title}, {what}: {name} / {first} = {seconds[name] / seconds[first]:.2f} "
                    f"(GMACs {gmacs[name] / gmacs[first]:.2f}; {1e3 * seconds[name]:.0f} ms / "
                    f"{1e3 * seconds[first]:.0f} ms, batch {batch})"
                )


def interleaved(measured: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate, measured in turn after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        for name, run in measured.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def forward(model: nn.Module, batch: int, size: int) -> Callable[[], None]:
    """Inference of one batch."""
    pictures = torch.randn(batch, 3, size, size)

    def run() -> None:
        model.eval()
        with torch.no_grad():
            model(pictures)

    return run


def training_step(model: nn.Module, batch: int, size: int) -> Callable[[], None]:
    """Forward, backward and AdamW on one batch."""
    pictures = torch.randn(batch, 3, size, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        model(pictures).square().mean().backward()
        optimizer.step()

    return run


def product_rate(size: int = 1024, rounds: int = 10) -> float:
    """Billions of multiply-accumulates per second of a float32 matrix product."""
    left, right = torch.randn(size, size), torch.randn(size, size)

    def run() -> None:
        torch.mm(left, right)

    return size**3 / interleaved({"product": run}, rounds)["product"] / 1e9


if __name__ == "__main__":
    main()
