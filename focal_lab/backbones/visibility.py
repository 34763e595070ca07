"""Which keys a window may look at: what lies on the map, and of a rolled window what was its neighbour.

Shape suffixes: H W canvas height and width, P windows per map, Q queries per window, K keys per window over
all levels, R rows and columns of a region.

Everything is comparisons of coordinates, one direction at a time, so that a mask can be made on any device
and inside a traced graph; the attention keeps what it has made.
"""

from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import CoarseLevel

Device = torch.device | str | None


def allowed_keys(grid: WindowGrid, device: Device = None) -> Tensor | None:
    """Which keys exist: True where a query may look, None when all may look everywhere.

    Returns:
        Booleans (P, 1, K), or (P, Q, K) where it depends on the query (rolled windows).
    """
    hides_tokens = any(grid.roll) or (grid.masked and (grid.canvas != grid.map_size or any(grid.expand)))
    hides_cells = any(level.region != level.cells for level in grid.levels)
    if not hides_tokens and not hides_cells and not (grid.masked and grid.canvas != grid.map_size):
        return None
    parts = [_fine(grid, device), *(_coarse(grid, level, device) for level in grid.levels)]
    queries = max(part.shape[1] for part in parts)
    return torch.cat([part.expand(-1, queries, -1) for part in parts], 2)


def inside_map(grid: WindowGrid, device: Device = None) -> Tensor:
    """(H, W) of the canvas: True where the map is, False on padding."""
    rows, columns = (
        _within(_places(grid.canvas[axis], device), grid.offset[axis], grid.map_size[axis]) for axis in (0, 1)
    )
    return rows[:, None] & columns


def _fine(grid: WindowGrid, device: Device) -> Tensor:
    if any(grid.roll):
        return _rolled(grid, device)
    seen = []
    for axis in (0, 1):
        windows = _places(grid.windows[axis], device)
        region = _places(grid.fine_region[axis], device) - grid.expand[axis]
        places = windows[:, None] * grid.window[axis] + region
        everywhere = torch.ones_like(places, dtype=torch.bool)
        inside = _within(places, grid.offset[axis], grid.map_size[axis])
        seen.append(inside if grid.masked else everywhere)
    return _outer(*seen)[:, None]


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
    return seen.flatten(4).flatten(2, 3).flatten(0, 1)


def _coarse(grid: WindowGrid, level: CoarseLevel, device: Device) -> Tensor:
    seen = []
    for axis in (0, 1):
        cells, size, window = level.cells[axis], level.pool_size[axis], grid.window[axis]
        margin = (level.region[axis] - cells) // 2
        region = _places(level.region[axis], device) - margin
        place = _places(grid.windows[axis], device)[:, None] * cells + region
        exists = _within(place, 0, grid.windows[axis] * cells)
        if grid.masked:
            # the cells of a window are centred in it; one exists when it covers at least one token of the map
            window_of = torch.div(place, cells, rounding_mode="floor")
            first = window_of * window + (window - cells * size) // 2 + (place - window_of * cells) * size
            top, bottom = grid.offset[axis], grid.offset[axis] + grid.map_size[axis]
            exists = exists & (first < bottom) & (first + size > top)
        seen.append(exists)
    return _outer(*seen)[:, None]


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """(windows down, R) and (windows across, R) to (P, R * R)."""
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _within(places: Tensor, first: int, count: int) -> Tensor:
    return (places >= first) & (places < first + count)


def _places(count: Any, device: Device) -> Tensor:
    return torch.arange(count, device=device)
