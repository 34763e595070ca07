"""Windows, rings and pooled cells against computations one coordinate at a time."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support.attention_cases import one_stage
from torch import Tensor

from focal_lab.backbones import geometry, masks
from focal_lab.backbones.coarse_levels import CoarseLevel, Size
from focal_lab.backbones.geometry import WindowGrid

SIZES = [(10, 10), (7, 13), (13, 6), (4, 9), (3, 3)]
OUTSIDE = -1.0


def numbered(size: Size) -> Tensor:
    """A map whose token (row, column) says 1 + row * 100 + column, so that zero is padding."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (1 + rows * 100 + columns)[None, ..., None].double()


def number(row: int, column: int) -> float:
    return 1.0 + row * 100 + column


def allowed_of(grid: WindowGrid, queries: int) -> np.ndarray:
    """(P, Q, K)."""
    keys = math.prod(grid.fine_region) + sum(level.keys for level in grid.levels)
    allowed = masks.allowed_keys(grid)
    shape = (math.prod(grid.windows), queries, keys)
    return np.broadcast_to(np.ones((1, 1, 1), bool) if allowed is None else allowed[0].numpy(), shape)


def seen_fine(grid: WindowGrid, size: Size) -> Iterator[tuple[int, int, list[float]]]:
    """(window, query, numbers of its fine keys; OUTSIDE where hidden), as the module lays them out."""
    padded = geometry.pad_fine(geometry.to_canvas(numbered(size), grid), grid)
    shown = geometry.regions(padded, grid.windows, grid.window, grid.fine_region).reshape(
        math.prod(grid.windows), -1
    )
    allowed = allowed_of(grid, math.prod(grid.window))
    for window in range(len(shown)):
        for query in range(math.prod(grid.window)):
            seen = shown[window].numpy().copy()
            seen[~allowed[window, query, : len(seen)]] = OUTSIDE
            yield window, query, seen.tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("expand", [0, 1, 2])
def test_masked_windows_see_exactly_the_map_tokens_around_them(
    size: Size, shifted: bool, expand: int
) -> None:
    stage = one_stage(size, window_size=4, expand_sizes=expand, use_shift=True)
    grid = geometry.lay_windows(stage, size, shifted, "mask")
    shift = stage.shift if shifted else (0, 0)
    origin = [-(window - move) if move else 0 for window, move in zip(stage.window, shift, strict=True)]
    for window, _, seen in seen_fine(grid, size):
        top = origin[0] + window // grid.windows[1] * stage.window[0]
        left = origin[1] + window % grid.windows[1] * stage.window[1]
        expected = [
            number(row, column) if 0 <= row < size[0] and 0 <= column < size[1] else OUTSIDE
            for row in range(top - stage.expand[0], top + stage.window[0] + stage.expand[0])
            for column in range(left - stage.expand[1], left + stage.window[1] + stage.expand[1])
        ]
        assert seen == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("expand", [0, 1, 2])
def test_wrapped_windows_see_the_rolled_map_and_of_their_own_only_former_neighbours(
    size: Size, shifted: bool, expand: int
) -> None:
    stage = one_stage(size, window_size=4, expand_sizes=expand, use_shift=True)
    grid = geometry.lay_windows(stage, size, shifted, "wrap")
    shift = stage.shift if shifted else (0, 0)
    height, width = stage.canvas_size

    def part(row: int, column: int) -> tuple[bool, bool]:
        """Which side of the seam a token of the rolled canvas comes from."""
        return row >= height - shift[0], column >= width - shift[1]

    for window, query, seen in seen_fine(grid, size):
        top = window // grid.windows[1] * stage.window[0]
        left = window % grid.windows[1] * stage.window[1]
        own = part(top + query // stage.window[1], left + query % stage.window[1])
        expected = []
        for row in range(top - stage.expand[0], top + stage.window[0] + stage.expand[0]):
            for column in range(left - stage.expand[1], left + stage.window[1] + stage.expand[1]):
                ring = not (0 <= row - top < stage.window[0] and 0 <= column - left < stage.window[1])
                source = ((row + shift[0]) % height, (column + shift[1]) % width)
                inside = source[0] < size[0] and source[1] < size[1]
                visible = ring or part(row, column) == own
                expected.append((number(*source) if inside else 0.0) if visible else OUTSIDE)
        assert seen == expected


@pytest.mark.parametrize("size", [(12, 8), (8, 20)])
def test_a_masked_shift_of_windows_alone_rolls_and_hides_tokens_that_are_not_neighbours(size: Size) -> None:
    stage = one_stage(size, window_size=4, expand_sizes=0, focal_levels=1, use_shift=True)
    grid = geometry.lay_windows(stage, size, True, "mask")
    assert grid.canvas == size, "no more windows than without the shift"
    for window, query, seen in seen_fine(grid, size):
        row = window // grid.windows[1] * 4 + query // 4 + 2
        column = window % grid.windows[1] * 4 + query % 4 + 2
        # the unrolled window of a token on an unbounded grid of windows displaced by 2
        top, left = (row - 2) // 4 * 4 + 2, (column - 2) // 4 * 4 + 2
        top, left = top - (row >= size[0]) * size[0], left - (column >= size[1]) * size[1]
        own = {
            number(r, c)
            for r in range(max(0, top), min(size[0], top + 4))
            for c in range(max(0, left), min(size[1], left + 4))
        }
        assert set(seen) - {OUTSIDE} == own


@pytest.mark.parametrize("border", ["wrap", "mask"])
@pytest.mark.parametrize("size", SIZES)
def test_coarse_cells_are_allowed_where_they_exist(size: Size, border: str) -> None:
    stage = one_stage(size, window_size=5, focal_levels=3, focal_windows=5, use_shift=True, expand_sizes=0)
    grid = geometry.lay_windows(stage, size, True, border)
    allowed = allowed_of(grid, math.prod(grid.window))
    first = math.prod(grid.fine_region)
    for level in grid.levels:
        for window in range(math.prod(grid.windows)):
            expected = []
            for i in range(level.region[0]):
                for j in range(level.region[1]):
                    row = window // grid.windows[1] * level.cells[0] - 2 + i
                    column = window % grid.windows[1] * level.cells[1] - 2 + j
                    expected.append(cell_exists(grid, level, row, column, border))
            shown = allowed[window, :, first : first + level.keys]
            assert (shown == np.array(expected)).all()
        first += level.keys


def cell_exists(grid: WindowGrid, level: CoarseLevel, row: int, column: int, border: str) -> bool:
    """Within the canvas and, with a masked border, over at least one token of the map."""
    found = []
    for axis, cell in enumerate((row, column)):
        if not 0 <= cell < grid.windows[axis] * level.cells[axis]:
            return False
        covered = range(*cell_extent(grid, level, axis, cell))
        found.append(any(0 <= token - grid.offset[axis] < grid.map_size[axis] for token in covered))
    return border == "wrap" or all(found)


def cell_extent(grid: WindowGrid, level: CoarseLevel, axis: int, cell: int) -> tuple[int, int]:
    """Canvas tokens that a cell of a masked border covers: the window's middle, cut into cells."""
    window, cells, size = grid.window[axis], level.cells[axis], level.pool_size[axis]
    start = cell // cells * window + (window - cells * size) // 2 + cell % cells * size
    return start, start + size


def pooled_view(x_BHWC: Tensor, grid: WindowGrid, level: CoarseLevel) -> Tensor:
    return geometry.sub_windows(geometry.fit_cells(x_BHWC, grid, level), level.pool_size)


@pytest.mark.parametrize("size", [(10, 15), (7, 13), (13, 6)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_masked_sub_windows_are_centred_in_their_window(size: Size, level: int) -> None:
    stage = one_stage(size, window_size=5, focal_levels=4, focal_windows=1, expand_sizes=0)
    grid = geometry.lay_windows(stage, size, False, "mask")
    coarse = grid.levels[level]
    assert coarse.pool_size == [(5, 5), (2, 2), (1, 1)][level]
    pooled = pooled_view(geometry.to_canvas(numbered(size), grid), grid, coarse)[0, ..., 0]
    for i, row in enumerate(pooled):
        for j, cell in enumerate(row):
            expected = [
                number(r, c) if r < size[0] and c < size[1] else 0.0
                for r in range(*cell_extent(grid, coarse, 0, i))
                for c in range(*cell_extent(grid, coarse, 1, j))
            ]
            assert cell.tolist() == expected


def grid_of_cells(size: int, pool_size: int, cells: int) -> tuple[WindowGrid, CoarseLevel]:
    """A wrapped row of windows of 5 tokens, the map being their canvas."""
    level = CoarseLevel((pool_size, 1), (cells, 1), (cells, 1))
    return WindowGrid((size, 1), (size, 1), (0, 0), (0, 0), (5, 1), (0, 0), (level,), False), level


@pytest.mark.parametrize(("windows", "kept"), [(1, range(4)), (2, range(1, 9)), (3, range(1, 13))])
def test_a_wrapped_canvas_that_is_too_large_is_cut_evenly(windows: int, kept: range) -> None:
    # 2 cells of 2 tokens for each window of 5; an odd token goes at the bottom
    grid, level = grid_of_cells(5 * windows, 2, 2)
    pooled = pooled_view(numbered((5 * windows, 1)), grid, level)
    assert pooled.flatten().tolist() == [number(row, 0) for row in kept]


def test_a_wrapped_canvas_that_is_too_small_is_padded_evenly() -> None:
    # cells * s_w beyond the window happens for no stage of `FocalOptions.stages`; the rule still stands
    grid, level = grid_of_cells(10, 3, 2)
    pooled = pooled_view(numbered((10, 1)), grid, level)
    assert pooled.flatten().tolist() == [0.0, *(number(row, 0) for row in range(10)), 0.0]


def test_regions_are_windows_of_the_map_without_a_copy() -> None:
    x_BHWC = numbered((6, 9))
    view = geometry.regions(x_BHWC, (2, 3), (3, 2), (3, 5))
    assert view.shape == (1, 2, 3, 3, 5, 1)
    for i in range(2):
        for j in range(3):
            assert view[0, i, j].equal(x_BHWC[0, 3 * i : 3 * i + 3, 2 * j : 2 * j + 5])
    assert view.data_ptr() == x_BHWC.data_ptr()


@pytest.mark.parametrize("border", ["wrap", "mask"])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_from_canvas_undoes_to_canvas(size: Size, levels: int, border: str) -> None:
    stage = one_stage(size, window_size=4, focal_levels=levels, use_shift=True)
    grid = geometry.lay_windows(stage, size, True, border)
    canvas = geometry.to_canvas(numbered(size), grid)
    assert tuple(canvas.shape[1:3]) == grid.canvas
    assert (canvas.sum(), canvas.count_nonzero()) == (numbered(size).sum(), math.prod(size))
    assert geometry.from_canvas(canvas, grid).equal(numbered(size))


@pytest.mark.parametrize("window", [(3, 3), (2, 4), (1, 3)])
def test_own_positions_index_swins_table(window: Size) -> None:
    index = geometry.position_index(window, window)
    tokens = [(row, column) for row in range(window[0]) for column in range(window[1])]
    for q, query in enumerate(tokens):
        for k, key in enumerate(tokens):
            down, right = query[0] - key[0] + window[0] - 1, query[1] - key[1] + window[1] - 1
            assert index[q, k] == down * (2 * window[1] - 1) + right
    assert (index.min(), index.max()) == (0, (2 * window[0] - 1) * (2 * window[1] - 1) - 1)


@pytest.mark.parametrize(("window", "region"), [((3, 3), (5, 5)), ((2, 4), (4, 3)), ((7, 7), (8, 8))])
def test_coarse_positions_follow_the_released_formula(window: Size, region: Size) -> None:
    index = geometry.position_index(window, region)
    for query in range(math.prod(window)):
        for key in range(math.prod(region)):
            down = query // window[1] - key // region[1] + region[0] - 1
            right = query % window[1] - key % region[1] + region[1] - 1
            assert index[query, key] == down * (window[1] + region[1] - 1) + right
    assert index.min() == 0
    assert index.max() == (window[0] + region[0] - 1) * (window[1] + region[1] - 1) - 1


@pytest.mark.parametrize("per_window", [False, True])
@pytest.mark.parametrize("expand", [0, 1])
def test_every_position_bias_is_used_and_ring_biases_once(expand: int, per_window: bool) -> None:
    stage = one_stage((12, 12), window_size=3, expand_sizes=expand, focal_levels=2, focal_windows=3)
    index = geometry.bias_index(stage, per_window)
    own, ring, coarse = 25, 9 * (16 if expand else 0), 9 if per_window else 25
    assert index.shape == (9, stage.keys)
    values, counts = np.unique(index, return_counts=True)
    assert values.tolist() == list(range(own + ring + coarse))
    assert (counts[own : own + ring] == 1).all()
    if per_window:
        assert (counts[own + ring :] == 9).all(), "the nine queries share the bias of each pooled token"


def test_the_ring_is_the_frame_around_the_window() -> None:
    ring = geometry.ring_positions((2, 3), (1, 2)).reshape(4, 7)
    assert (~ring).nonzero()[0].tolist() == [1, 1, 1, 2, 2, 2]
    assert (~ring).nonzero()[1].tolist() == [2, 3, 4, 2, 3, 4]


def test_no_mask_is_made_where_every_key_exists() -> None:
    wrapped = one_stage((10, 10), focal_levels=1)
    assert masks.allowed_keys(geometry.lay_windows(wrapped, (10, 10), False, "wrap")) is None
    whole = one_stage((10, 10), focal_levels=1, expand_sizes=0)
    assert masks.allowed_keys(geometry.lay_windows(whole, (10, 10), False, "mask")) is None
