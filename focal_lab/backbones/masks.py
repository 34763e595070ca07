"""Which keys a window may look at: what lies on the map, and of a rolled window what was its neighbour.

Shape suffixes: B batch (1 where all pictures share a mask), H W canvas height and width, P windows per map,
Q queries per window, K keys per window over all levels, R rows and columns of a region.

Everything is comparisons of coordinates, one direction at a time, so that a mask can be made on any device
and inside a traced graph; the attention keeps what it has made.
"""

from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones.attention.coarse_levels import CoarseLevel
from focal_lab.backbones.geometry import WindowGrid

Device = torch.device | str | None


def allowed_keys(grid: WindowGrid, device: Device = None, valid_B2: Tensor | None = None) -> Tensor | None:
    """Which keys exist: True where a query may look, None when all may look everywhere.

    Args:
        grid: how windows lie.
        device: of the mask.
        valid_B2: height and width in tokens of what each picture fills of the map, from its top left corner.

    Returns:
        Booleans (B, P, 1, K), or (B, P, Q, K) where it depends on the query (rolled windows).
    """
    if valid_B2 is not None:
        exists = torch.cat(
            [_fine(grid, device, valid_B2), *(_coarse(grid, c, device, valid_B2) for c in grid.levels)], 3
        )
        # a window without a picture sees everything: what it computes is thrown away, but must be finite
        return exists | ~exists.any(3, keepdim=True)
    hides_tokens = any(grid.roll) or (grid.masked and (grid.canvas != grid.map_size or any(grid.expand)))
    hides_cells = any(level.region != level.cells for level in grid.levels)
    if not hides_tokens and not hides_cells and not (grid.masked and grid.canvas != grid.map_size):
        return None
    parts = [_fine(grid, device), *(_coarse(grid, level, device) for level in grid.levels)]
    queries = max(part.shape[2] for part in parts)
    return torch.cat([part.expand(-1, -1, queries, -1) for part in parts], 3)


def inside_map(grid: WindowGrid, device: Device = None, valid_B2: Tensor | None = None) -> Tensor:
    """(B, H, W) of the canvas: True where the map is, or what a picture fills of it, False on padding."""
    rows, columns = (
        _within(
            _places(grid.canvas[axis], device)[None], grid.offset[axis], _extent(grid, axis, valid_B2, dims=1)
        )
        for axis in (0, 1)
    )
    return rows[:, :, None] & columns[:, None]


def inside_picture(height: int, width: int, valid_B2: Tensor) -> Tensor:
    """(B, H, W, 1): True where each picture of a padded batch is, given its height and width."""
    rows = _places(height, valid_B2.device) < valid_B2[:, :1]
    columns = _places(width, valid_B2.device) < valid_B2[:, 1:]
    return (rows[:, :, None] & columns[:, None])[..., None]


def _fine(grid: WindowGrid, device: Device, valid_B2: Tensor | None = None) -> Tensor:
    if any(grid.roll):
        return _rolled(grid, device)
    seen = []
    for axis in (0, 1):
        windows = _places(grid.windows[axis], device)
        region = _places(grid.fine_region[axis], device) - grid.expand[axis]
        places = (windows[:, None] * grid.window[axis] + region)[None]
        everywhere = torch.ones_like(places, dtype=torch.bool)
        inside = _within(places, grid.offset[axis], _extent(grid, axis, valid_B2, dims=2))
        seen.append(inside if grid.masked else everywhere)
    return _outer(*seen)[:, :, None]


def _rolled(grid: WindowGrid, device: Device) -> Tensor:
    """Swin's mask: a query sees of its own rolled window what was its neighbour before rolling.

    The ring is left visible, as in the released code (with a masked border there is none here).
    """
    own, alike = [], []
    for axis in (0, 1):
        length, window = grid.canvas[axis], grid.window[axis]
        first = (_places(grid.windows[axis], device) * window)[:, None]
        region = _places(grid.fine_region[axis], device) - grid.expand[axis]
        seam = length - grid.roll[axis]  # what lies beyond it was rolled in from the opposite edge
        query_beyond = first + _places(window, device) >= seam
        key_beyond = first + region >= seam
        own.append(_within(region, 0, window))
        alike.append(query_beyond[:, :, None] == key_beyond[:, None])
    rows, columns = alike
    neighbours = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    ring = ~(own[0][:, None] & own[1])
    seen = neighbours | ring
    return seen.flatten(4).flatten(2, 3).flatten(0, 1)[None]


def _coarse(grid: WindowGrid, level: CoarseLevel, device: Device, valid_B2: Tensor | None = None) -> Tensor:
    seen = []
    for axis in (0, 1):
        cells, size, window = level.cells[axis], level.pool_size[axis], grid.window[axis]
        margin = (level.region[axis] - cells) // 2
        region = _places(level.region[axis], device) - margin
        place = (_places(grid.windows[axis], device)[:, None] * cells + region)[None]
        exists = _within(place, 0, grid.windows[axis] * cells)
        if grid.masked:
            # the cells of a window are centred in it; one exists when it covers at least one token of the map
            window_of = torch.div(place, cells, rounding_mode="floor")
            first = window_of * window + (window - cells * size) // 2 + (place - window_of * cells) * size
            top = grid.offset[axis]
            bottom = top + _extent(grid, axis, valid_B2, dims=2)
            exists = exists & (first < bottom) & (first + size > top)
        seen.append(exists)
    return _outer(*seen)[:, :, None]


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, windows down, R) and (B, windows across, R) to (B, P, R * R)."""
    return (rows[:, :, None, :, None] & columns[:, None, :, None, :]).flatten(3).flatten(1, 2)


def _extent(grid: WindowGrid, axis: int, valid_B2: Tensor | None, dims: int) -> int | Tensor:
    """Tokens of the map in one direction, or of each picture: (B, 1, ...) with `dims` ones."""
    return grid.map_size[axis] if valid_B2 is None else valid_B2[:, axis].view(-1, *[1] * dims)


def _within(places: Tensor, first: int, count: int | Tensor) -> Tensor:
    return (places >= first) & (places < first + count)


def _places(count: Any, device: Device) -> Tensor:
    return torch.arange(count, device=device)
