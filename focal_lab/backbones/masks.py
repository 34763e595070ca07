"""Which keys each window may attend to, given the border rule, padding and rolled windows.

Shape suffixes: B batch (1 where all images share a mask), H W map or canvas height and width, P windows per
map, Q queries per window, K keys per window over all levels, R keys of one level.

A mask is made by laying out a map of booleans exactly as the attention lays out its tokens. Nothing is copied
from the host, which would fail while a CUDA graph is captured.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones import geometry
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import Size

Device = torch.device | str | None


def allowed_keys(grid: WindowGrid, device: Device = None, valid_B2: Tensor | None = None) -> Tensor | None:
    """Which keys exist: True where a query may look, None when all may look everywhere.

    Args:
        grid: positions of the windows.
        device: of the mask.
        valid_B2: height and width of each image in tokens, from the map's top left corner.

    Returns:
        Booleans (B, P, 1, K), or (B, P, Q, K) where it depends on the query (rolled windows).
    """
    beyond_map = grid.masked and (grid.canvas != grid.map_size or any(grid.expand))
    beyond_grid = any(level.region != level.cells for level in grid.levels)
    if valid_B2 is None and not (any(grid.roll) or beyond_map or beyond_grid):
        return None
    exists_BHW1 = torch.ones((1, *grid.canvas, 1), dtype=torch.bool, device=device)
    if grid.masked:
        exists_BHW1 = inside_map(grid, device, valid_B2)
    fine_BPR = _shown(geometry.pad_fine(exists_BHW1, grid), grid, grid.window, grid.fine_region)
    parts = [_rolled(grid, device) if any(grid.roll) else fine_BPR[:, :, None]]
    for level in grid.levels:
        cells = geometry.fit_cells(exists_BHW1, grid, level)
        cells_BHW1 = geometry.sub_windows(cells, level.pool_size).any(3)  # one token of the map is enough
        cells_BHW1 = geometry.pad_coarse(cells_BHW1, level)
        parts.append(_shown(cells_BHW1, grid, level.cells, level.region)[:, :, None])
    queries = max(part.shape[2] for part in parts)
    allowed = torch.cat([part.expand(-1, -1, queries, -1) for part in parts], 3)
    if valid_B2 is None:
        return allowed
    # a window outside the image sees everything: its output is thrown away, but must be finite
    return allowed | ~allowed.any(3, keepdim=True)


def inside_map(grid: WindowGrid, device: Device = None, valid_B2: Tensor | None = None) -> Tensor:
    """(B, H, W, 1) of the canvas: True on the map, or on each image's part of it; False on padding."""
    if valid_B2 is None:
        inside_BHW1 = torch.ones((1, *grid.map_size, 1), dtype=torch.bool, device=device)
    else:
        inside_BHW1 = inside_image(*grid.map_size, valid_B2)
    return geometry.to_canvas(inside_BHW1, grid)


def inside_image(height: int, width: int, valid_B2: Tensor) -> Tensor:
    """(B, H, W, 1): True on each image of a padded batch, given its height and width."""
    rows = torch.arange(height, device=valid_B2.device) < valid_B2[:, :1]
    columns = torch.arange(width, device=valid_B2.device) < valid_B2[:, 1:]
    return (rows[:, :, None] & columns[:, None])[..., None]


def _rolled(grid: WindowGrid, device: Device) -> Tensor:
    """Swin's mask (1, P, Q, R): within its rolled window a query sees its neighbours before rolling.

    The ring stays visible, as in the released code (with a masked border there is none here).
    """
    # tokens beyond the seam were rolled in from the opposite edge
    rows, columns = (
        torch.arange(grid.canvas[axis], device=device) >= grid.canvas[axis] - grid.roll[axis]
        for axis in (0, 1)
    )
    side_BHW1 = (2 * rows[:, None] + columns)[None, ..., None]
    query_BPQ = _shown(side_BHW1, grid, grid.window, grid.window)
    key_BPR = _shown(geometry.pad_fine(side_BHW1, grid), grid, grid.window, grid.fine_region)
    own_hw = torch.zeros(grid.window, dtype=torch.bool, device=device)
    ring_R = F.pad(own_hw, (*[grid.expand[1]] * 2, *[grid.expand[0]] * 2), value=True).flatten()
    return (query_BPQ[..., None] == key_BPR[:, :, None]) | ring_R


def _shown(x_BHW1: Tensor, grid: WindowGrid, step: Size, region: Size) -> Tensor:
    """What each window sees of a padded map: (B, P, R)."""
    return geometry.regions(x_BHW1, grid.windows, step, region).flatten(3).flatten(1, 2)
