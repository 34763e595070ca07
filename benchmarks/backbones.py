"""Time and memory of focal backbones as ratios: to timm's Swin of the same size; the reference path beside.

Everything is measured in one process, the candidates of a comparison in turn, and a ratio is the median of
its rounds: on a shared machine seconds drift by a factor of two, ratios do not. Memory is what a pass adds at
its peak, each in a process of its own. Freed memory stays with the process, as in `focal-lab fit`: else page
faults take up to a fourth of the time of both, and how many there are depends on what ran before.

    python benchmarks/backbones.py [--rounds 7] [--only PART_OF_A_TITLE] [--no-memory] [--return-memory]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timing import hardware, interleaved, markdown, product_rate
from torch import nn

import focal_lab  # noqa: F401  (registers the backbones)
from focal_lab.backbones.counting import count_gmacs
from focal_lab.tools.profile.measure import measure_memory
from focal_lab.training.malloc import keep_freed_memory

HEAD = [
    "candidate",
    "ms",
    "time ratio",
    "GMAC ratio",
    "share of matrix-product rate",
    "memory MB",
    "memory ratio",
]


@dataclass(frozen=True)
class Comparison:
    """Models on the same images; the first is what the others are compared with."""

    title: str
    models: dict[str, tuple[str, dict[str, Any]]]
    batch: int
    size: tuple[int, int]
    modes: tuple[str, ...] = ("inference", "training step")
    more_rounds: int = field(default=1)


def against_swin(letter: str, size: tuple[int, int], batch: int, **named: Any) -> Comparison:
    """A focal preset, fast and reference path, against timm's Swin of the same size."""
    name = {"T": "tiny", "S": "small"}[letter]
    options: dict[str, Any] = {} if size == (224, 224) else {"img_size": size}
    focal = f"focal_{name}_patch4_window7_224"
    models = {
        f"swin_{name}": (f"swin_{name}_patch4_window7_224", options),
        f"focal_{name}": (focal, options),
        f"focal_{name}, reference path": (focal, options | {"attention": "reference"}),
    }
    title = f"Focal-{letter}, {size[1]} x {size[0]} px, batch {batch}"
    return Comparison(title, models, batch, size, **named)


MICRO = "focal_micro_patch2_window7_28"
COMPARISONS = (
    against_swin("T", (224, 224), 8),
    against_swin("S", (224, 224), 8),
    against_swin("T", (448, 448), 2),
    against_swin("S", (448, 448), 2),
    against_swin("T", (896, 896), 1),
    against_swin("T", (800, 1280), 1),
    Comparison(
        "micro, 28 x 28 px, batch 64",
        {
            "reference path": (MICRO, {"attention": "reference"}),
            "fast path": (MICRO, {}),
            "Swin preset": ("focal_swin_micro_patch2_window7_28", {}),
        },
        64,
        (28, 28),
        more_rounds=4,
    ),
)


def main() -> None:
    """Print a table for each comparison."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="comparisons whose title contains this")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument(
        "--return-memory", action="store_true", help="leave the C library's way with freed memory as it is"
    )
    options = parser.parse_args()
    kept = not options.return_memory and keep_freed_memory()
    print(f"{hardware()}; freed memory {'is kept' if kept else 'may go back to the system'}", flush=True)
    for comparison in COMPARISONS:
        if options.only in comparison.title:
            _compare(comparison, options.rounds * comparison.more_rounds, memory=not options.no_memory)


def _compare(comparison: Comparison, rounds: int, *, memory: bool) -> None:
    made = {name: timm.create_model(model, **kwargs) for name, (model, kwargs) in comparison.models.items()}
    gmacs = {name: count_gmacs(model, comparison.size) for name, model in made.items()}
    first = next(iter(made))
    for mode in comparison.modes:
        training = mode == "training step"
        make = training_step if training else inference
        rate = product_rate()
        timings = interleaved(
            {name: make(model, comparison.batch, comparison.size) for name, model in made.items()}, rounds
        )
        rate = (rate + product_rate()) / 2
        grown = {name: _memory(comparison, name, training) if memory else None for name in made}
        rows = []
        for name, timing in timings.items():
            # a training step is a forward pass and twice its products in backward
            achieved = gmacs[name] * comparison.batch * (3 if training else 1) / timing.seconds
            rows.append(
                [
                    name,
                    f"{1e3 * timing.seconds:.0f}",
                    f"{timing.ratio:.2f}",
                    f"{gmacs[name] / gmacs[first]:.2f}",
                    f"{achieved / rate:.2f}",
                    *_memory_cells(grown[name], grown[first]),
                ]
            )
        print(f"\n{comparison.title}, {mode} (matrix product: {rate:.0f} GMAC/s)\n")
        print(markdown(HEAD, rows), flush=True)


def _memory(comparison: Comparison, name: str, training: bool) -> int | None:
    model, kwargs = comparison.models[name]
    return measure_memory(model, kwargs, (comparison.batch, 3, *comparison.size), training=training)


def _memory_cells(grown: int | None, first: int | None) -> list[str]:
    return [f"{grown / 2**20:.0f}", f"{grown / first:.2f}"] if grown and first else ["-", "-"]


def inference(model: nn.Module, batch: int, size: tuple[int, int]) -> Callable[[], None]:
    """Inference of one batch."""
    images = torch.randn(batch, 3, *size)

    def run() -> None:
        model.eval()
        with torch.inference_mode():
            model(images)

    return run


def training_step(model: nn.Module, batch: int, size: tuple[int, int]) -> Callable[[], None]:
    """Forward, backward and AdamW on one batch."""
    images = torch.randn(batch, 3, *size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
