"""A narrow Swin of timm's with drawn weights, and the same as Microsoft stores it."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "depths": (2, 2),
    "num_heads": (3, 6),
    "img_size": 56,
    "num_classes": 5,
}


def swin(**options: Any) -> nn.Module:
    """timm's Swin, two stages narrow, with every parameter drawn."""
    model = timm.create_model("swin_tiny_patch4_window7_224", **SMALL | options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def as_microsoft_stores(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Downsampling at the end of a stage, the head's older name, and the buffers."""
    stored = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49)}
    for key, value in state.items():
        name = key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head.")
        stored[name] = value
        if key.endswith("relative_position_bias_table"):
            stored[name.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)
    return stored
