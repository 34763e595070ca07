"""Fast against reference attention on random networks: options, batch and image sizes drawn from a seed.

    python benchmarks/random_configurations.py [how many, 200] [seed, 0]

Every other network has chunks where a small map would take the reference's way. Prints the largest difference
of logits and of all gradients, relative to the largest value of each, in float32 and float64, and the
configurations that they belong to.
"""

import random
import sys
from typing import Any

import timm
import torch
from torch import Tensor

import focal_lab  # noqa: F401  (registers the backbones)
from focal_lab.backbones.attention import fused as attention_kernels

BOUND = {torch.float32: 1e-4, torch.float64: 1e-10}


def draw(rng: random.Random) -> tuple[dict[str, Any], int, tuple[int, int]]:
    """Options, batch size, and height and width of the images."""
    heads = rng.choice([1, 2, 4])
    options = {
        "patch_size": rng.choice([2, 4]),
        "embed_dim": heads * rng.choice([4, 8, 12]),
        "depths": rng.choice([(1, 1, 1, 1), (2, 1, 1, 1)]),
        "num_heads": (heads, heads, 2 * heads, 2 * heads),
        "window_size": rng.choice([1, 2, 3, 4, 5, 7, 8]),
        "focal_levels": rng.choice([1, 2, 2, 3]),
        "expand_sizes": rng.choice([0, 1, 2, 3]),
        "focal_pool": rng.choice(["fc", "mean", "max", "conv"]),
        "coarse_bias": rng.choice(["query", "window"]),
        "level_overlap": rng.choice(["keep", "exclude"]),
        "border": rng.choice(["wrap", "mask"]),
        "use_shift": rng.random() < 0.5,
        "use_conv_embed": rng.random() < 0.2,
        "use_layerscale": rng.random() < 0.2,
        "use_pre_norm": rng.random() < 0.2,
    }
    batch = rng.choice([1, 2, 3, 7, 16, 64])
    longest = 24 if batch > 16 else 60
    return options, batch, (rng.randint(9, longest), rng.randint(9, longest))


def outcome(model: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Logits, and the gradient of every parameter."""
    model.zero_grad(set_to_none=True)
    logits = model(x)
    logits.square().sum().backward()
    return {"logits": logits.detach()} | {
        n: p.grad for n, p in model.named_parameters() if p.grad is not None
    }


def difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest relative difference; a gradient that nearly vanishes is measured against the largest of all."""
    assert found.keys() == wanted.keys()
    most = max(float(value.abs().max()) for name, value in wanted.items() if name != "logits")
    worst = 0.0
    for name, value in wanted.items():
        size = float(value.abs().max()) if name == "logits" else max(float(value.abs().max()), 1e-3 * most)
        error = float((found[name] - value).abs().max()) / max(size, 1e-30)
        worst = max(worst, error if error == error else float("inf"))
    return worst


def main(count: int = 200, seed: int = 0) -> int:
    """Compare; the exit status is 1 if a difference is above its bound."""
    rng = random.Random(seed)
    worst: dict[torch.dtype, tuple[float, Any]] = dict.fromkeys(BOUND, (0.0, None))
    done = refused = 0
    few = attention_kernels.FEW_WINDOWS
    while done < count:
        attention_kernels.FEW_WINDOWS = few if done % 2 else 0
        drawn = options, batch, size = draw(rng)
        torch.manual_seed(done)
        try:
            fast = timm.create_model("focal_micro_patch2_window7_28", num_classes=5, **options)
        except ValueError:  # options that no network can have together
            refused += 1
            continue
        for name, parameter in fast.named_parameters():
            if "bias" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        reference = timm.create_model(
            "focal_micro_patch2_window7_28", num_classes=5, attention="reference", **options
        )
        reference.load_state_dict(fast.state_dict())
        x = torch.randn(batch, 3, *size)
        for dtype in BOUND:
            ours, theirs = (outcome(model.to(dtype), x.to(dtype)) for model in (fast, reference))
            error = difference(ours, theirs)
            if error > worst[dtype][0]:
                worst[dtype] = error, drawn
        done += 1
    print(f"{done} networks ({refused} draws that no network can have)")
    for dtype, (error, drawn) in worst.items():
        print(f"{dtype}: largest relative difference {error:.2g} ({drawn})")
    return int(any(error > BOUND[dtype] for dtype, (error, _) in worst.items()))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
