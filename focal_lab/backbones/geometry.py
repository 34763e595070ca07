"""Positions of windows, rings and pooled cells on a map.

Shape suffixes: B batch, H W map height and width, C channels, P windows per map, Q queries per window,
K keys per window over all levels.

Keys are ordered by level: first the fine region (the window and its ring) row by row, then each coarse
region row by row.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones.coarse_levels import CoarseLevel
from focal_lab.backbones.options import Size, StageConfig

# Indices are numpy arrays: a tensor made for a model on the meta device would have no values.
Index = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class WindowGrid:
    """Positions of a block's windows on a map; sizes are (height, width) in tokens.

    Attributes:
        canvas: the map padded to whole windows in both directions.
        offset: position of the map's first token on the canvas.
        roll: cyclic shift of the canvas; together with `offset` it shifts the windows.
        masked: border="mask": keys outside the map do not exist.
    """

    map_size: Size
    canvas: Size
    offset: Size
    roll: Size
    window: Size
    expand: Size
    levels: tuple[CoarseLevel, ...]
    masked: bool

    @property
    def windows(self) -> Size:
        """Windows per direction."""
        return self.canvas[0] // self.window[0], self.canvas[1] // self.window[1]

    @property
    def fine_region(self) -> Size:
        """The window with the ring around it."""
        return self.window[0] + 2 * self.expand[0], self.window[1] + 2 * self.expand[1]


def lay_windows(
    stage: StageConfig, map_size: Size, shifted: bool, border: str, padded: bool = False
) -> WindowGrid:
    """The grid of a block on a map of any size.

    The released code shifts by rolling the map. With a masked border the windows move over a padded canvas
    instead, so that no pooled cell mixes opposite edges of the image. Where windows see only themselves,
    rolling with Swin's mask is the same function with fewer windows, unless images are `padded` to the map's
    size and end before the map does.
    """
    window = stage.window
    shift = stage.shift if shifted else (0, 0)
    canvas = (_whole(map_size[0], window[0]), _whole(map_size[1], window[1]))
    window_only = not padded and len(stage.levels) == 0 and not any(stage.expand) and canvas == map_size
    if border == "wrap" or window_only:
        return WindowGrid(
            map_size, canvas, (0, 0), shift, window, stage.expand, stage.levels, border == "mask"
        )
    offset = (window[0] - shift[0] if shift[0] else 0, window[1] - shift[1] if shift[1] else 0)
    canvas = (_whole(map_size[0] + offset[0], window[0]), _whole(map_size[1] + offset[1], window[1]))
    return WindowGrid(map_size, canvas, offset, (0, 0), window, stage.expand, stage.levels, True)


def to_canvas(x_BHWC: Tensor, grid: WindowGrid) -> Tensor:
    """Pad the map with zeros to the canvas and roll it."""
    (height, width), (top, left) = grid.map_size, grid.offset
    bottom, right = grid.canvas[0] - height - top, grid.canvas[1] - width - left
    if top or left or bottom or right:
        x_BHWC = F.pad(x_BHWC, (0, 0, left, right, top, bottom))
    if any(grid.roll):
        x_BHWC = torch.roll(x_BHWC, (-grid.roll[0], -grid.roll[1]), dims=(1, 2))
    return x_BHWC


def from_canvas(x_BHWC: Tensor, grid: WindowGrid) -> Tensor:
    """The inverse of `to_canvas`: roll back and cut the map out."""
    if any(grid.roll):
        x_BHWC = torch.roll(x_BHWC, grid.roll, dims=(1, 2))
    if grid.canvas != grid.map_size:
        (height, width), (top, left) = grid.map_size, grid.offset
        x_BHWC = x_BHWC[:, top : top + height, left : left + width]
    return x_BHWC


def pad_fine(x_BHWC: Tensor, grid: WindowGrid) -> Tensor:
    """Surround the canvas by `expand` tokens: its opposite edge (wrap), or zeros that a mask hides."""
    rows, columns = grid.expand
    if grid.masked:
        return F.pad(x_BHWC, (0, 0, columns, columns, rows, rows)) if rows or columns else x_BHWC
    if rows:
        x_BHWC = torch.cat((x_BHWC[:, -rows:], x_BHWC, x_BHWC[:, :rows]), 1)
    if columns:
        x_BHWC = torch.cat((x_BHWC[:, :, -columns:], x_BHWC, x_BHWC[:, :, :columns]), 2)
    return x_BHWC


def pad_coarse(x_BHWC: Tensor, level: CoarseLevel) -> Tensor:
    """Surround the pooled grid by the cells beyond it that border windows see; a mask hides them."""
    rows, columns = (level.region[0] - level.cells[0]) // 2, (level.region[1] - level.cells[1]) // 2
    return F.pad(x_BHWC, (0, 0, columns, columns, rows, rows)) if rows or columns else x_BHWC


def regions(x_BHWC: Tensor, windows: Size, step: Size, size: Size) -> Tensor:
    """A view of the overlapping regions that windows see.

    Args:
        x_BHWC: padded map of at least (windows - 1) * step + size tokens per direction; C may be several
            dimensions.
        windows: regions per direction.
        step: distance between neighbouring regions, in tokens.
        size: extent of a region, in tokens.

    Returns:
        View of shape (B, windows[0], windows[1], size[0], size[1], *C).
    """
    x_BHWC = x_BHWC.narrow(1, 0, (windows[0] - 1) * step[0] + size[0])
    x_BHWC = x_BHWC.narrow(2, 0, (windows[1] - 1) * step[1] + size[1])
    view_BPPCRR = x_BHWC.unfold(1, size[0], step[0]).unfold(2, size[1], step[1])
    return view_BPPCRR.movedim((-2, -1), (3, 4))


def ring_positions(window: Size, expand: Size) -> Mask:
    """(fine keys,) True for each token of the fine region that belongs to the ring, row by row."""
    region = np.ones((window[0] + 2 * expand[0], window[1] + 2 * expand[1]), bool)
    region[expand[0] : expand[0] + window[0], expand[1] : expand[1] + window[1]] = False
    return region.ravel()


def position_index(window: Size, region: Size) -> Index:
    """(Q, keys) index into a table of the (s_p + g - 1)^2 relative positions of a window and a g x g region.

    A window's own table, as in Swin, is the case of a region as large as the window.
    """
    query, key = _positions(window), _positions(region)
    down = query[0][:, None] - key[0][None] + region[0] - 1
    right = query[1][:, None] - key[1][None] + region[1] - 1
    return down * (window[1] + region[1] - 1) + right


def bias_index(stage: StageConfig, per_window: bool) -> Index:
    """Index of each query's bias for each key into all of a stage's flattened tables, concatenated.

    The tables in order: the own window's ((2 s_p - 1)^2 positions), the ring's (Q x ring keys), and per
    coarse level (s_p + g - 1)^2 positions, or g^2 where all queries of a window share a bias.

    Returns:
        Index (Q, K), keys in the order of the levels.
    """
    queries = math.prod(stage.window)
    fine = np.empty((queries, stage.fine_keys), np.int64)
    ring = ring_positions(stage.window, stage.expand)
    fine[:, ~ring] = position_index(stage.window, stage.window)
    first = math.prod(table_side(stage.window, stage.window))
    fine[:, ring] = first + np.arange(queries * ring.sum()).reshape(queries, -1)
    first += queries * int(ring.sum())
    parts = [fine]
    for level in stage.levels:
        if per_window:
            index = np.broadcast_to(np.arange(level.keys), (queries, level.keys))
        else:
            index = position_index(stage.window, level.region)
        parts.append(first + index)
        first += coarse_table_size(stage.window, level, per_window)
    return np.concatenate(parts, 1)


def hidden_keys(stage: StageConfig) -> Mask:
    """(K,) True for pooled tokens that level_overlap="exclude" hides from every window."""
    coarse = [np.isin(np.arange(level.keys), level.hidden) for level in stage.levels]
    return np.concatenate([np.zeros(stage.fine_keys, bool), *coarse])


def coarse_table_size(window: Size, level: CoarseLevel, per_window: bool) -> int:
    """Position biases per head of a coarse level."""
    return level.keys if per_window else math.prod(table_side(window, level.region))


def table_side(window: Size, region: Size) -> Size:
    """Relative positions of a window's queries and a region's keys per direction."""
    return window[0] + region[0] - 1, window[1] + region[1] - 1


def fit_cells(x_BHWC: Tensor, grid: WindowGrid, level: CoarseLevel) -> Tensor:
    """The canvas cut or padded to whole sub-windows of a coarse level.

    The released code cuts (or pads) the canvas evenly on both sides. With a masked border the sub-windows are
    centred in each window instead, so that they do not depend on the canvas's size. Both are the same where
    cells * s_w equals the window.

    Returns:
        (B, grid height * s_w, grid width * s_w, C).
    """
    covered = (level.cells[0] * level.pool_size[0], level.cells[1] * level.pool_size[1])
    if not grid.masked:
        return _fit_evenly(x_BHWC, (grid.windows[0] * covered[0], grid.windows[1] * covered[1]))
    if covered == grid.window:
        return x_BHWC
    (rows, columns), (height, width) = grid.windows, grid.window
    top, left = (height - covered[0]) // 2, (width - covered[1]) // 2
    batch, channels = x_BHWC.shape[0], x_BHWC.shape[3]
    x_BPHPWC = x_BHWC.reshape(batch, rows, height, columns, width, channels)
    x_BPHPWC = x_BPHPWC[:, :, top : top + covered[0], :, left : left + covered[1]]
    return x_BPHPWC.reshape(batch, rows * covered[0], columns * covered[1], channels)


def sub_windows(x_BHWC: Tensor, size: Size) -> Tensor:
    """Tokens of each sub-window of that size: (B, H / size, W / size, size * size, C)."""
    x = torch.unflatten(torch.unflatten(x_BHWC, 2, (-1, size[1])), 1, (-1, size[0])).transpose(2, 3)
    return x.flatten(3, 4)


def _positions(size: Size) -> tuple[Index, Index]:
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    return rows.ravel(), columns.ravel()


def _fit_evenly(x_BHWC: Tensor, size: Size) -> Tensor:
    """Cut or zero-pad evenly on both sides, the odd token at the bottom and right."""
    margins = []
    for dim, wanted in ((2, size[1]), (1, size[0])):
        missing = wanted - x_BHWC.shape[dim]
        if missing < 0:
            x_BHWC = x_BHWC.narrow(dim, -missing // 2, wanted)
            missing = 0
        margins += [missing // 2, missing - missing // 2]
    return F.pad(x_BHWC, (0, 0, *margins)) if any(margins) else x_BHWC


def _whole(length: int, window: int) -> int:
    return -(-length // window) * window
