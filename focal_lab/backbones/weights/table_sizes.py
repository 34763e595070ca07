"""Sizes of bias tables and pooling weights, taken from a stage or inferred from shapes.

Inference works for the sizes of the model's own stage and for square ones.

Shape suffixes: N heads, T positions of a table, Q queries of a window, R keys of its ring.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from focal_lab.backbones.options import Size, StageConfig
from focal_lab.backbones.weights.formats import OWN, PER_QUERY, PER_WINDOW, RING, level_of


@dataclass(frozen=True)
class TableSizes:
    """Window, ring expansion and, by number of the coarse level, region and pool size."""

    window: Size
    expand: Size
    regions: Mapping[int, Size]
    pools: Mapping[int, Size]

    @classmethod
    def of(cls, stage: StageConfig) -> "TableSizes":
        """The sizes of a model's stage."""
        regions = {i: level.region for i, level in enumerate(stage.levels)}
        return cls(
            stage.window, stage.expand, regions, {i: level.pool_size for i, level in enumerate(stage.levels)}
        )


class NotSquareError(ValueError):
    """Sizes that cannot be inferred from a shape."""


def infer_sizes(
    values: Mapping[str, Tensor], stage: StageConfig, levels: Sequence[int]
) -> tuple[TableSizes, dict[str, str]]:
    """Sizes of one attention's values, and for each key whose size is unclear the reason.

    Args:
        values: position biases and pooling weights.
        stage: the model's stage; its sizes are assumed where they fit.
        levels: the checkpoint's coarse level for each of the stage's.

    Raises:
        NotSquareError: the window is unclear.
    """
    window = _window_of(values[OWN], values.get(RING), stage)
    expand, regions, pools = stage.expand, {}, {}
    errors: dict[str, str] = {}
    for key, value in values.items():
        old = level_of(key)
        try:
            if key == RING:
                expand = _expand_of(value, window, stage)
            elif old is None or old not in levels:
                continue
            elif key.startswith(PER_QUERY):
                regions[old] = _region_of(value, window, stage, stage.levels[levels.index(old)].region)
            elif key.startswith(PER_WINDOW):
                region = stage.levels[levels.index(old)].region
                regions[old] = region if value.shape[1] == math.prod(region) else _side(value, "region")
            elif value.ndim == 4:
                pools[old] = (value.shape[2], value.shape[3])
            elif value.ndim == 2:
                size = stage.levels[levels.index(old)].pool_size
                pools[old] = size if value.shape[1] == math.prod(size) else _side(value, "sub-window")
        except NotSquareError as error:
            errors[key] = str(error)
    return TableSizes(window, expand, regions, pools), errors


def _window_of(table_TN: Tensor, ring_NQR: Tensor | None, stage: StageConfig) -> Size:
    """The window of an own table and its ring: the stage's if they fit it, else square."""
    positions = table_TN.shape[0]
    queries = None if ring_NQR is None else ring_NQR.shape[1]
    height, width = stage.window
    if positions == (2 * height - 1) * (2 * width - 1) and queries in (None, height * width):
        return stage.window
    side = math.isqrt(positions)
    window = (side + 1) // 2
    if side**2 != positions or side % 2 == 0 or queries not in (None, window**2):
        raise NotSquareError(
            f"shape {tuple(table_TN.shape)} belongs to no square window, and only such can be resized to "
            f"window {size_text(stage.window)}"
        )
    return window, window


def _expand_of(ring_NQR: Tensor, window: Size, stage: StageConfig) -> Size:
    """The expansion of a ring: the stage's if it fits, else the same in both directions."""
    queries = math.prod(stage.window)
    if window == stage.window and ring_NQR.shape[1:] == (queries, stage.fine_keys - queries):
        return stage.expand
    side = math.isqrt(ring_NQR.shape[2] + ring_NQR.shape[1])
    grown = side - window[0]
    if window[0] != window[1] or side**2 != sum(ring_NQR.shape[1:]) or grown % 2:
        raise NotSquareError(
            f"shape {tuple(ring_NQR.shape)} is not an even ring of a square window, which resizing needs"
        )
    return grown // 2, grown // 2


def _region_of(table_NT: Tensor, window: Size, stage: StageConfig, region: Size) -> Size:
    """The region of a table with a bias for each query: the stage's if it fits, else square."""
    if window == stage.window and table_NT.shape[1] == math.prod(table_side(window, region)):
        return region
    side = _side(table_NT, "window and region")
    region = (side[0] - window[0] + 1, side[1] - window[1] + 1)
    if min(region) < 1:
        raise NotSquareError(
            f"shape {tuple(table_NT.shape)} is too small for the window {size_text(window)} of its stage"
        )
    return region


def _side(table_NT: Tensor, what: str) -> Size:
    side = math.isqrt(table_NT.shape[1])
    if side**2 != table_NT.shape[1]:
        raise NotSquareError(
            f"shape {tuple(table_NT.shape)} belongs to no square {what}, and only such can be resized"
        )
    return side, side


def table_side(window: Size, region: Size) -> Size:
    """Positions per direction of a coarse level's table with a bias for each query."""
    return window[0] + region[0] - 1, window[1] + region[1] - 1


def size_text(size: Size) -> str:
    """`7`, or `7 x 12`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
