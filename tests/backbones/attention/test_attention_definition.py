"""Focal attention written out for one query at a time, in plain Python.

Nothing of the package computes here but the attention under test: coordinates, masks, pooling and positions
are worked out again from the definition.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from support.attention_cases import make_attention, random_map
from torch import float64, no_grad

from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.options import ATTENTIONS, BORDERS, Size

Vector = np.ndarray


@dataclass
class Definition:
    """One map of tokens (H, W, C), seen through the weights of an attention with square windows."""

    module: FocalAttention
    tokens: Vector
    border: str
    shifted: bool
    per_window: bool = False
    exclude: bool = False

    def __post_init__(self) -> None:
        stage = self.module.stage
        (self.window, _), (self.expand, _) = stage.window, stage.expand
        self.shift = stage.shift[0] if self.shifted else 0
        self.weights = {name: value.numpy(force=True) for name, value in self.module.named_parameters()}
        # a wrapped map is padded to whole windows first, and its padding counts like any token
        self.canvas = [math.ceil(extent / self.window) * self.window for extent in self.tokens.shape[:2]]

    def token(self, row: int, column: int) -> Vector | None:
        """The token at a position of the frame that the windows divide; None where there is none."""
        if self.border == "wrap":
            row, column = (row + self.shift) % self.canvas[0], (column + self.shift) % self.canvas[1]
        else:
            offset = (self.window - self.shift) % self.window if self.shift else 0
            row, column = row - offset, column - offset
        if 0 <= row < self.tokens.shape[0] and 0 <= column < self.tokens.shape[1]:
            return self.tokens[row, column]
        on_canvas = 0 <= row < self.canvas[0] and 0 <= column < self.canvas[1]
        return np.zeros(self.tokens.shape[2]) if self.border == "wrap" and on_canvas else None

    def windows(self) -> Size:
        """How many windows the frame has."""
        if self.border == "wrap" or not self.shift:
            return self.canvas[0] // self.window, self.canvas[1] // self.window
        extents = [extent + self.window - self.shift for extent in self.tokens.shape[:2]]
        return math.ceil(extents[0] / self.window), math.ceil(extents[1] / self.window)

    def project(self, part: int, token: Vector) -> Vector:
        """q, k or v (part 0, 1 or 2) of a token."""
        dim = len(token)
        weight = self.weights["qkv.weight"][part * dim : (part + 1) * dim]
        return weight @ token + self.weights["qkv.bias"][part * dim : (part + 1) * dim]

    def fine_keys(self, top: int, left: int, query: Size) -> list[tuple[Vector, Vector]]:
        """(token, bias per head) of the window and its ring."""
        keys = []
        ring = 0
        for i in range(-self.expand, self.window + self.expand):
            for j in range(-self.expand, self.window + self.expand):
                own = 0 <= i < self.window and 0 <= j < self.window
                token = self.token(top + i, left + j)
                if own:
                    side = 2 * self.window - 1
                    row = (query[0] - i + self.window - 1) * side + query[1] - j + self.window - 1
                    bias = self.weights["relative_position_bias_table"][row]
                else:
                    bias = self.weights["ring_bias"][:, query[0] * self.window + query[1], ring]
                    ring += 1
                if token is not None and not (own and self.torn(top, left, query, (i, j))):
                    keys.append((token, bias))
        return keys

    def torn(self, top: int, left: int, one: Size, other: Size) -> bool:
        """Whether rolling alone has brought two tokens into the same window."""
        if self.border == "mask" or not self.shift:
            return False
        for axis, start in enumerate((top, left)):
            seam = self.canvas[axis] - self.shift
            if (start + one[axis] >= seam) != (start + other[axis] >= seam):
                return True
        return False

    def pooled(self, level: int, cell: Size, size: int, cells: int) -> Vector | None:
        """fc pooling of one cell of the frame; None where it does not exist."""
        starts = []
        for axis in range(2):
            count = self.windows()[axis] * cells
            if not 0 <= cell[axis] < count:
                return None
            if self.border == "wrap":
                starts.append((self.canvas[axis] - count * size) // 2 + cell[axis] * size)
            else:
                middle = (self.window - cells * size) // 2
                starts.append(cell[axis] // cells * self.window + middle + cell[axis] % cells * size)
        tokens = [self.token(starts[0] + i, starts[1] + j) for i in range(size) for j in range(size)]
        if all(token is None for token in tokens):
            return None
        weights = self.weights[f"pools.{level}.linear.weight"][0]
        summed = np.full(self.tokens.shape[2], self.weights[f"pools.{level}.linear.bias"][0])
        for weight, token in zip(weights, tokens, strict=True):
            summed = summed + (0 if token is None else weight * token)
        return summed

    def coarse_keys(self, level: int, window: Size, query: Size) -> list[tuple[Vector, Vector]]:
        """(token, bias per head) of level k = `level`, counted from 0."""
        cells, size = 2**level, self.window // 2**level
        focal_window = self.module.stage.levels[0].region[0]
        region = focal_window + 2**level - 1
        keys = []
        for i in range(region):
            for j in range(region):
                cell = (cells * window[0] - focal_window // 2 + i, cells * window[1] - focal_window // 2 + j)
                token = self.pooled(level, cell, size, cells)
                if token is None or (self.exclude and self.seen_finer(level, (i, j))):
                    continue
                if self.per_window:
                    bias = self.weights[f"window_bias_tables.{level}"][:, i * region + j]
                else:
                    index = (query[0] - i + region - 1) * (self.window + region - 1)
                    bias = self.weights[f"coarse_bias_tables.{level}"][:, index + query[1] - j + region - 1]
                keys.append((token, bias))
        return keys

    def extent(self, level: int) -> tuple[int, int, int]:
        """First token (the window's own first is 0), sub-window size and cells a side of a level's region."""
        cells, size = 2**level, self.window // 2**level
        focal_window = self.module.stage.levels[0].region[0]
        first = (self.window - cells * size) // 2 - focal_window // 2 * size
        return first, size, focal_window + cells - 1

    def seen_finer(self, level: int, cell: Size) -> bool:
        """Whether a finer level shows all tokens of a cell of the region."""
        first, size, _ = self.extent(level)
        finer = [range(-self.expand, self.window + self.expand)]
        for other in range(len(self.module.stage.levels)):
            other_first, other_size, side = self.extent(other)
            if other_size < size:
                finer.append(range(other_first, other_first + side * other_size))
        tokens = [first + place * size + i for place in cell for i in range(size)]
        return any(all(token in extent for token in tokens) for extent in finer)

    def attend(self, window: Size, query: Size) -> Vector | None:
        """The output at one query of one window; None where the query is padding."""
        top, left = window[0] * self.window, window[1] * self.window
        asking = self.token(top + query[0], left + query[1])
        if asking is None:
            return None
        keys = self.fine_keys(top, left, query)
        for level in range(len(self.module.stage.levels)):
            keys += self.coarse_keys(level, window, query)
        heads, dim = self.module.num_heads, len(asking)
        out = np.zeros(dim)
        for head in range(heads):
            part = slice(head * dim // heads, (head + 1) * dim // heads)
            q = self.project(0, asking)[part] / math.sqrt(dim // heads)
            shares = [math.exp(q @ self.project(1, token)[part] + bias[head]) for token, bias in keys]
            for share, (token, _) in zip(shares, keys, strict=True):
                out[part] += share / sum(shares) * self.project(2, token)[part]
        return self.weights["proj.weight"] @ out + self.weights["proj.bias"]

    def position(self, window: Size, query: Size) -> Size:
        """Where on the map a query of a window lies."""
        row, column = window[0] * self.window + query[0], window[1] * self.window + query[1]
        if self.border == "wrap":
            return (row + self.shift) % self.canvas[0], (column + self.shift) % self.canvas[1]
        offset = self.window - self.shift if self.shift else 0
        return row - offset, column - offset


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("levels", "expand", "window", "coarse_bias", "overlap"),
    [
        (1, 0, 3, "query", "keep"),
        (1, 2, 3, "query", "keep"),
        (2, 0, 4, "query", "keep"),
        (2, 1, 3, "query", "keep"),
        (3, 2, 3, "query", "keep"),
        (2, 1, 4, "window", "keep"),
        (3, 0, 3, "query", "exclude"),
        (3, 1, 5, "window", "exclude"),
    ],
)
def test_attention_is_its_definition(
    levels: int,
    expand: int,
    window: int,
    coarse_bias: str,
    overlap: str,
    shifted: bool,
    border: str,
    attention: str,
) -> None:
    size = (7, 8)
    module = make_attention(
        size,
        border=border,
        attention=attention,
        dtype=float64,
        embed_dim=4,
        window_size=window,
        expand_sizes=expand,
        focal_levels=levels,
        use_shift=True,
        coarse_bias=coarse_bias,
        level_overlap=overlap,
    )
    x_BHWC = random_map(module, size, batch=1)
    with no_grad():
        found = module(x_BHWC, shifted)[0].numpy()
    per_window, exclude = coarse_bias == "window", overlap == "exclude"
    definition = Definition(module, x_BHWC[0].numpy(), border, shifted, per_window, exclude)
    rows, columns = definition.windows()
    positions = set()
    for i in range(rows):
        for j in range(columns):
            for query in ((a, b) for a in range(window) for b in range(window)):
                row, column = definition.position((i, j), query)
                if 0 <= row < size[0] and 0 <= column < size[1]:
                    positions.add((row, column))
                    expected = definition.attend((i, j), query)
                    assert expected is not None
                    np.testing.assert_allclose(found[row, column], expected, rtol=1e-9, atol=1e-9)
    assert len(positions) == size[0] * size[1]
