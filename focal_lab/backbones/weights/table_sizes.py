"""Sizes that a checkpoint's tables are for: known from a stage, or told from shapes, for square windows only.

Shape suffixes: N heads, T positions of a table, Q queries of a window, R keys of its ring.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from focal_lab.backbones.options import Size, StageConfig


@dataclass(frozen=True)
class Source:
    """What a checkpoint's tables are for, where it is known and need not be told from their shapes."""

    window: Size
    expand: Size
    regions: tuple[Size, ...]
    pools: tuple[Size, ...]

    @classmethod
    def of(cls, stage: StageConfig) -> "Source":
        """The sizes of a model's stage."""
        regions = tuple(level.region for level in stage.levels)
        return cls(stage.window, stage.expand, regions, tuple(level.pool_size for level in stage.levels))


class NotSquareError(ValueError):
    """Sizes that cannot be told from a shape."""


def window_of(table_TN: Tensor, ring_NQR: Tensor | None, stage: StageConfig) -> Size:
    """The window of a checkpoint's own table and ring: the stage's if they fit it, else square.

    Raises:
        NotSquareError: neither.
    """
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
            f"window {told(stage.window)}"
        )
    return window, window


def expand_of(ring_NQR: Tensor, window: Size, stage: StageConfig) -> Size:
    """The expansion of a ring: the stage's if it fits, else the same in both directions.

    Raises:
        NotSquareError: neither.
    """
    height, width = stage.window
    if window == stage.window and ring_NQR.shape[1:] == (height * width, stage.fine_keys - height * width):
        return stage.expand
    side = math.isqrt(ring_NQR.shape[2] + ring_NQR.shape[1])
    grown = side - window[0]
    if window[0] != window[1] or side**2 != sum(ring_NQR.shape[1:]) or grown % 2:
        raise NotSquareError(
            f"shape {tuple(ring_NQR.shape)} is no even ring of a square window; only such can be resized"
        )
    return grown // 2, grown // 2


def square_side(table_NT: Tensor, what: str) -> Size:
    """Side of the square that T positions fill; `what` is of that shape.

    Raises:
        NotSquareError: T is no square number.
    """
    side = math.isqrt(table_NT.shape[1])
    if side**2 != table_NT.shape[1]:
        raise NotSquareError(
            f"shape {tuple(table_NT.shape)} belongs to no square {what}, and only such can be resized"
        )
    return side, side


def pool_size_of(weight: Tensor) -> Size:
    """The sub-window of `fc` (1, S) or `conv` (C, 1, height, width) weights.

    Raises:
        NotSquareError: S is no square number.
    """
    if weight.ndim == 4:
        return weight.shape[2], weight.shape[3]
    return square_side(weight, "sub-window")


def table_side(window: Size, region: Size) -> Size:
    """Positions per direction of a coarse level's table with a bias for each query."""
    return window[0] + region[0] - 1, window[1] + region[1] - 1


def region_of(side: Size, window: Size) -> Size:
    """The inverse of `table_side`."""
    return side[0] - window[0] + 1, side[1] - window[1] + 1


def told(size: Size) -> str:
    """`7`, or `7 x 12`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
