"""The maps that an attention's keys and values are read from, and how windows look at them.

Shape suffixes: B batch, H W canvas height and width, C channels, P windows per map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from focal_lab.backbones.geometry import WindowGrid, pad_coarse, pad_fine
from focal_lab.backbones.options import Size


@dataclass(frozen=True)
class Layout:
    """Everything about an attention that is not a tensor.

    Attributes:
        grid: how windows lie.
        heads: N.
        scale: factor of the scores.
    """

    grid: WindowGrid
    heads: int
    scale: float


@dataclass(frozen=True)
class KeyMap:
    """One level's k and v, and how windows look at them.

    Attributes:
        kv_BHWC: padded map, k in the first half of the channels and v in the second.
        windows: windows per direction.
        step: distance of neighbouring windows' regions, in this map's tokens.
        region: extent of a region.
    """

    kv_BHWC: Tensor  # noqa: N815
    windows: Size
    step: Size
    region: Size

    @property
    def keys(self) -> int:
        """Keys that this level gives to each query."""
        return self.region[0] * self.region[1]


def split_levels(qkv_BHWC: Tensor, coarse: Sequence[Tensor], layout: Layout) -> tuple[Tensor, list[KeyMap]]:
    """Scaled queries (B, H, W, C), and the keys' maps, fine first, padded to what border windows see."""
    grid, dim = layout.grid, qkv_BHWC.shape[-1] // 3
    maps = [KeyMap(pad_fine(qkv_BHWC[..., dim:], grid), grid.windows, grid.window, grid.fine_region)]
    maps += [
        KeyMap(pad_coarse(kv, level), grid.windows, level.cells, level.region)
        for kv, level in zip(coarse, grid.levels, strict=True)
    ]
    return qkv_BHWC[..., :dim] * layout.scale, maps
