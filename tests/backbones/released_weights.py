"""The released classification code's weights in the names and shapes of this package's backbone."""

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from focal_lab.backbones.focal import FocalTransformer
from focal_lab.backbones.options import StageConfig

GOLDEN = Path(__file__).parent.parent / "golden"
BUFFERS = ("relative_position_index", "valid_ind_", "attn_mask")


@dataclass(frozen=True)
class Golden:
    """One golden file: the options of a backbone, released weights, a picture and its logits."""

    options: dict[str, Any]
    weights: dict[str, Tensor]
    picture: Tensor
    logits: Tensor


def read_golden(name: str) -> Golden:
    """`tests/golden/<name>.safetensors.xz`."""
    data = lzma.decompress((GOLDEN / f"{name}.safetensors.xz").read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    options = json.loads(header["__metadata__"]["config"])
    del options["focal_stages"]  # every stage is focal
    if options["focal_pool"] == "none":
        del options["focal_pool"]  # there is no level to pool
    tensors = load(data)
    weights = {
        key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")
    }
    return Golden(options, weights, tensors["input"], tensors["logits"])


def convert(released: dict[str, Tensor], model: FocalTransformer) -> dict[str, Tensor]:
    """A released state_dict as one that `model` loads."""
    converted = {}
    for name, value in released.items():
        if any(part in name for part in BUFFERS):
            continue
        parts = name.split(".")
        if parts[0] == "head":
            converted[f"head.fc.{parts[1]}"] = value
        elif parts[2:3] == ["downsample"]:
            converted[".".join(["layers", str(int(parts[1]) + 1), *parts[2:]])] = value
        elif parts[-1] == "relative_position_bias_table_to_neighbors":
            stage = model.stages_config[int(parts[1])]
            converted[".".join([*parts[:-1], "ring_bias"])] = fold_ring(value[0], stage)
        elif parts[-2:-1] == ["relative_position_bias_table_to_windows"]:
            converted[".".join([*parts[:-2], "coarse_bias_tables", parts[-1]])] = value
        elif "pool_layers" in parts:
            converted[".".join([*parts[:4], "attn", "pools", parts[5], "linear", parts[6]])] = value
        else:
            converted[name] = value
    return converted


def fold_ring(bias_NQR: Tensor, stage: StageConfig) -> Tensor:
    """Biases of the ring's distinct tokens from those of four rolled copies, which show some twice.

    Two equal keys with biases b1 and b2 are one key with bias log(exp b1 + exp b2).
    """
    window, expand = stage.window[0], stage.expand[0]
    side = window + 2 * expand
    folded = torch.full((*bias_NQR.shape[:2], side, side), -float("inf"), dtype=torch.float64)
    copied = 0
    for down, right in ((expand, expand), (expand, -expand), (-expand, expand), (-expand, -expand)):
        for i in range(window):
            for j in range(window):
                row, column = i + down, j + right
                if 0 <= row < window and 0 <= column < window:
                    continue
                cell = folded[:, :, row + expand, column + expand]
                cell.copy_(torch.logaddexp(cell, bias_NQR[:, :, copied].double()))
                copied += 1
    assert copied == bias_NQR.shape[2]
    ring = torch.ones(side, side, dtype=torch.bool)
    ring[expand : expand + window, expand : expand + window] = False
    return folded[:, :, ring].float()
