"""Padded maps of keys and values, and the windows' views of them.

Shape suffixes: B batch, H W canvas height and width, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from focal_lab.backbones.geometry import WindowGrid, pad_coarse, pad_fine
from focal_lab.backbones.options import Size


@dataclass(frozen=True)
class AttentionLayout:
    """Everything about an attention that is not a tensor; `scale` multiplies the queries."""

    grid: WindowGrid
    heads: int
    scale: float


class KeyMap(NamedTuple):
    """One level's keys and values: k is the first half of the channels, v the second.

    `step` is the distance between the regions of neighbouring windows, in tokens of this map.
    """

    kv_BHWC: Tensor  # noqa: N815
    step: Size
    region: Size


def split_levels(
    qkv_BHWC: Tensor, coarse: Sequence[Tensor], layout: AttentionLayout
) -> tuple[Tensor, list[KeyMap]]:
    """Scaled queries (B, H, W, C), and the padded map of each level, fine first."""
    grid, dim = layout.grid, qkv_BHWC.shape[-1] // 3
    maps = [KeyMap(pad_fine(qkv_BHWC[..., dim:], grid), grid.window, grid.fine_region)]
    for kv_BHWC, level in zip(coarse, grid.levels, strict=True):
        maps.append(KeyMap(pad_coarse(kv_BHWC, level), level.cells, level.region))
    return qkv_BHWC[..., :dim] * layout.scale, maps
