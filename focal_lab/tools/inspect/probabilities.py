"""What the attention of a network looks at: its probabilities, and where on the map each key lies.

The probabilities are made from the same q, k, biases and masks as the attention's own output; nothing of the
network's computation changes while they are watched.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, K keys per window over all levels, R rows or columns of a level's region, L levels.

Levels are "window" (the query's own), "ring" (what the fine level shows beyond it) and "pooled 1",
"pooled 2", ... (the coarse ones, as the options order them).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from focal_lab.backbones import geometry
from focal_lab.backbones import masks as visibility
from focal_lab.backbones.attention.coarse_levels import CoarseLevel, Size
from focal_lab.backbones.attention.key_maps import Layout, split_levels
from focal_lab.backbones.attention.layer import FocalAttention, project
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.model import FocalTransformer


@dataclass(frozen=True)
class Layer:
    """A block of a network.

    Attributes:
        number: counted through all stages from 0, as in the paper's figure 7.
        stage: from 1.
        block: within its stage, from 1.
        stride: pixels of the picture per token, in both directions.
    """

    number: int
    stage: int
    block: int
    stride: int
    shifted: bool
    attention: FocalAttention


@dataclass(frozen=True)
class SeenLevel:
    """What one query sees of one level.

    Attributes:
        name: window, ring, pooled 1, ...
        probabilities_NK: attention to each key of the level; over all levels they sum to 1.
        areas_KHW: which tokens of the map each key stands for: one, those of a sub-window, or none where the
            key is hidden from the query or lies on padding.
    """

    name: str
    probabilities_NK: Tensor  # noqa: N815
    areas_KHW: Tensor  # noqa: N815

    @property
    def heat_NHW(self) -> Tensor:  # noqa: N802
        """For each token of the map the attention to the keys that stand for it."""
        areas_KHW = self.areas_KHW.to(self.probabilities_NK.dtype)
        return torch.einsum("nk,khw->nhw", self.probabilities_NK, areas_KHW)


@dataclass(frozen=True)
class Shares:
    """How attention is divided, averaged over the queries that lie on the picture.

    Attributes:
        levels: names of the levels.
        shares_BNL: of each level; they sum to 1.
        off_picture_BN: part of it that goes to keys which stand for nothing but padding. Always 0 with
            border="mask".
    """

    levels: tuple[str, ...]
    shares_BNL: Tensor  # noqa: N815
    off_picture_BN: Tensor  # noqa: N815


@dataclass(frozen=True)
class Attended:
    """One call of an attention, recomputed.

    Attributes:
        grid: how windows lie on the map.
        probabilities_BPNQK: softmax over the keys of all levels, in the order of the levels.
        visible: which keys exist, boolean (1 or B, P, 1 or Q, K); the others have probability 0.
        output_BHWC: what these probabilities make of the values, projected: the attention's own output.
        valid_B2: height and width in tokens of what each picture fills of the map; None for all of it.
    """

    grid: WindowGrid
    probabilities_BPNQK: Tensor  # noqa: N815
    visible: Tensor
    output_BHWC: Tensor  # noqa: N815
    valid_B2: Tensor | None = None  # noqa: N815

    @cached_property
    def levels(self) -> dict[str, Tensor]:
        """The places of each level's keys among all K."""
        return key_levels(self.grid)

    def at(self, picture: int, row: int, column: int) -> list[SeenLevel]:
        """What the token at a place of the map attends to, finest level first.

        Args:
            picture: of the batch.
            row: of the map.
            column: of the map.

        Raises:
            ValueError: the place is not on the map, or not on the picture.
        """
        height, width = self._filled(picture)
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"token ({row}, {column}) is not on the {height} x {width} map")
        (i, in_row), (j, in_column) = (
            divmod(_on_canvas(place, self.grid, axis), self.grid.window[axis])
            for axis, place in enumerate((row, column))
        )
        window = i * self.grid.windows[1] + j
        query = in_row * self.grid.window[1] + in_column
        probabilities_NK = self.probabilities_BPNQK[picture, window, :, query]
        visible = self.visible[picture % len(self.visible), window]
        visible_K = visible[query % len(visible)]
        areas_KHW = key_areas(self.grid, i, j).to(visible_K.device) & visible_K[:, None, None]
        areas_KHW[:, height:] = False
        areas_KHW[:, :, width:] = False
        return [
            SeenLevel(name, probabilities_NK[:, keys], areas_KHW[keys]) for name, keys in self.levels.items()
        ]

    def shares(self) -> Shares:
        """How the attention of all queries on the picture is divided among levels."""
        queries_BPQ = self._queries()
        count_B = queries_BPQ.sum((1, 2)).clamp(min=1)
        # one pass over the probabilities for all levels: (B, N, P, K) summed over queries
        mass_BPNK = torch.einsum(
            "bpnqk,bpq->bpnk", self.probabilities_BPNQK, queries_BPQ.to(self.probabilities_BPNQK.dtype)
        )
        mass_BPNK = mass_BPNK / count_B[:, None, None, None]
        mass_BNK = mass_BPNK.sum(1)
        shares = [mass_BNK[:, :, keys].sum(-1) for keys in self.levels.values()]
        nowhere_BPK = ~self._on_picture()
        off_BN = (mass_BPNK * nowhere_BPK[:, :, None]).sum((1, 3))
        return Shares(tuple(self.levels), torch.stack(shares, -1), off_BN)

    def _filled(self, picture: int) -> Size:
        if self.valid_B2 is None:
            return self.grid.map_size
        height, width = self.valid_B2[picture].tolist()
        return int(height), int(width)

    def _inside(self, axis: int, tokens: Tensor) -> Tensor:
        """(1 or B, *tokens.shape): whether tokens of the map, -1 for none, lie on each picture."""
        length: int | Tensor = self.grid.map_size[axis]
        if self.valid_B2 is not None:
            length = self.valid_B2[:, axis].view(-1, *[1] * tokens.ndim)
        return (tokens[None] >= 0) & (tokens[None] < length)

    def _queries(self) -> Tensor:
        """(B, P, Q) True for queries on the picture."""
        device = self.probabilities_BPNQK.device
        inside = []
        for axis in (0, 1):
            places = torch.arange(self.grid.canvas[axis], device=device)
            tokens = _on_map(places, self.grid, axis, wraps=False)
            inside.append(self._inside(axis, tokens).unflatten(1, (-1, self.grid.window[axis])))
        rows, columns = inside
        found: Tensor = (rows[:, :, None, :, None] & columns[:, None, :, None]).flatten(3).flatten(1, 2)
        return found.expand(len(self.probabilities_BPNQK), -1, -1)

    def _on_picture(self) -> Tensor:
        """(1 or B, P, K) True for keys that stand for at least one token of the picture."""
        device, parts = self.probabilities_BPNQK.device, []
        for level in (None, *self.grid.levels):
            rows, columns = (
                self._inside(axis, _key_tokens(self.grid, level, axis).to(device)).any(-1) for axis in (0, 1)
            )
            parts.append((rows[:, :, None, :, None] & columns[:, None, :, None]).flatten(3).flatten(1, 2))
        return torch.cat(parts, -1)


def network_layers(network: FocalTransformer) -> list[Layer]:
    """The blocks of a network in the order in which they compute."""
    found: list[Layer] = []
    for i, stage in enumerate(network.layers):
        for j, block in enumerate(cast(Any, stage).blocks):
            stride = network.options.patch_size * 2**i
            found.append(Layer(len(found), i + 1, j + 1, stride, block.shifted, block.attn))
    return found


@contextmanager
def watch_attention(
    network: FocalTransformer, seen: Callable[[Layer, Attended, float], None]
) -> Iterator[None]:
    """Within this context every attention of the network tells what it looks at.

    The network computes as ever; beside it each block's probabilities are recomputed from its input, without
    gradients. They live as long as `seen` keeps them: those of a large picture's first stage take hundreds of
    megabytes.

    Args:
        network: in evaluation mode.
        seen: called after each block with the block, what it attended to, and the largest difference of the
            recomputed output from the block's own, relative to that one's largest value.
    """

    def told(layer: Layer, module: FocalAttention, arguments: tuple[Any, ...], output: Tensor) -> None:
        with torch.no_grad():
            attended = recompute(module, *arguments)
            largest = output.abs().max().clamp(min=torch.finfo(output.dtype).tiny)
            error = float((attended.output_BHWC - output).abs().max() / largest)
            seen(layer, attended, error)

    handles = [
        layer.attention.register_forward_hook(partial(told, layer)) for layer in network_layers(network)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def recompute(
    attention: FocalAttention, x_BHWC: Tensor, shifted: bool = False, valid_B2: Tensor | None = None
) -> Attended:
    """What `attention(x_BHWC, shifted, valid_B2)` looks at, without dropout. Gradients flow.

    Args:
        attention: any focal attention.
        x_BHWC: its normalised map.
        shifted: as in the block.
        valid_B2: as in the block.
    """
    height, width = x_BHWC.shape[1:3]
    grid = geometry.lay_windows(
        attention.stage, (height, width), shifted, attention.border, padded=valid_B2 is not None
    )
    if valid_B2 is not None:
        x_BHWC = x_BHWC.where(visibility.inside_picture(height, width, valid_B2), 0.0)
    canvas_BHWC = geometry.to_canvas(x_BHWC, grid)
    inside = attention._inside(grid, x_BHWC.device, valid_B2)
    pooled = []
    for level, pool in zip(grid.levels, attention.pools, strict=True):
        cells_BHWC = geometry.fit_cells(canvas_BHWC, grid, level)
        pooled.append(pool(cells_BHWC, None if inside is None else geometry.fit_cells(inside, grid, level)))
    qkv_BHWC, coarse = project(canvas_BHWC, pooled, attention.qkv)
    layout = Layout(grid, attention.num_heads, attention.scale)
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    bias_NQK = attention.bias()
    visible = attention._allowed(grid, x_BHWC.device, valid_B2)
    if visible is None:
        visible = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=x_BHWC.device)
    if attention.hidden_keys is not None:
        visible = visible & ~attention.hidden_keys
    visible = visible.expand(-1, grid.windows[0] * grid.windows[1], -1, bias_NQK.shape[-1])
    q_BPNQD = _heads(geometry.regions(q_BHWC, grid.windows, grid.window, grid.window), layout.heads)
    keys, values = (
        torch.cat(
            [
                _heads(
                    geometry.regions(
                        level.kv_BHWC.chunk(2, -1)[part], level.windows, level.step, level.region
                    ),
                    layout.heads,
                )
                for level in maps
            ],
            3,
        )
        for part in (0, 1)
    )
    scores_BPNQK = q_BPNQD @ keys.transpose(3, 4) + bias_NQK
    scores_BPNQK = scores_BPNQK.masked_fill(~visible[:, :, None], float("-inf"))
    probabilities_BPNQK = scores_BPNQK.softmax(-1)
    out_BHWC = _from_windows(probabilities_BPNQK @ values, grid)
    out_BHWC = attention.proj(geometry.from_canvas(out_BHWC, grid))
    return Attended(grid, probabilities_BPNQK, visible, out_BHWC, valid_B2)


def key_levels(grid: WindowGrid) -> dict[str, Tensor]:
    """The places of each level's keys among all keys of a window; levels without keys are left out."""
    ring = torch.from_numpy(geometry.ring_positions(grid.window, grid.expand))
    found = {"window": (~ring).nonzero().flatten(), "ring": ring.nonzero().flatten()}
    first = len(ring)
    for number, level in enumerate(grid.levels, 1):
        found[f"pooled {number}"] = torch.arange(first, first + level.keys)
        first += level.keys
    return {name: keys for name, keys in found.items() if len(keys)}


def key_areas(grid: WindowGrid, i: int, j: int) -> Tensor:
    """Which tokens of the map the keys of window (i, j) stand for: booleans (K, H, W).

    A key beyond the border of a map that wraps around stands for the token that it really is, at the opposite
    edge; one on padding for none. Whether a query may look at a key is another matter.
    """
    (height, width), parts = grid.map_size, []
    for level in (None, *grid.levels):
        rows_RH = _covered(_key_tokens(grid, level, 0)[i], height)
        columns_RW = _covered(_key_tokens(grid, level, 1)[j], width)
        parts.append((rows_RH[:, None, :, None] & columns_RW[None, :, None, :]).flatten(0, 1))
    return torch.cat(parts)


def _covered(tokens_RS: Tensor, length: int) -> Tensor:
    """(R, length): which places of the map are among each row of tokens."""
    return (tokens_RS[:, :, None] == torch.arange(length)).any(1)


def _key_tokens(grid: WindowGrid, level: CoarseLevel | None, axis: int) -> Tensor:
    """In one direction, the tokens of the map that each key of each window stands for; -1 for none.

    Args:
        grid: how windows lie.
        level: a coarse level; None for the fine one.
        axis: 0 down, 1 across.

    Returns:
        (windows, R, tokens of a sub-window).
    """
    windows = torch.arange(grid.windows[axis])[:, None]
    window = grid.window[axis]
    if level is None:
        places = windows * window + torch.arange(grid.fine_region[axis]) - grid.expand[axis]
        return _on_map(places, grid, axis, wraps=not grid.masked)[..., None]
    cells, size, region = level.cells[axis], level.pool_size[axis], level.region[axis]
    cell = windows * cells + torch.arange(region) - (region - cells) // 2
    if grid.masked:  # the cells of a window are centred in it
        own = torch.div(cell, cells, rounding_mode="floor")
        first = own * window + (window - cells * size) // 2 + (cell - own * cells) * size
    else:  # the whole canvas was cut or padded evenly to whole cells
        missing = grid.windows[axis] * cells * size - grid.canvas[axis]
        first = cell * size + (-missing // 2 if missing < 0 else -(missing // 2))
    tokens = _on_map(first[..., None] + torch.arange(size), grid, axis, wraps=False)
    exists = (cell >= 0) & (cell < grid.windows[axis] * cells)
    return tokens.where(exists[..., None], -1)


def _on_map(places: Tensor, grid: WindowGrid, axis: int, *, wraps: bool) -> Tensor:
    """Places of the canvas as tokens of the map; -1 for padding and, unless it wraps, what lies beyond."""
    length = grid.canvas[axis]
    tokens = (places + grid.roll[axis]) % length - grid.offset[axis]
    there = (tokens >= 0) & (tokens < grid.map_size[axis])
    if not wraps:
        there &= (places >= 0) & (places < length)
    return tokens.where(there, -1)


def _on_canvas(token: int, grid: WindowGrid, axis: int) -> int:
    """The inverse of `_on_map`."""
    return (token + grid.offset[axis] - grid.roll[axis]) % grid.canvas[axis]


def _heads(x_BPPRRC: Tensor, heads: int) -> Tensor:
    """Regions (B, windows down, windows across, R, R, C) to (B, P, N, R * R, D)."""
    x_BPKC = x_BPPRRC.flatten(3, 4).flatten(1, 2)
    return torch.unflatten(x_BPKC, -1, (heads, -1)).transpose(2, 3)


def _from_windows(x_BPNQD: Tensor, grid: WindowGrid) -> Tensor:
    """(B, P, N, Q, D) to the canvas (B, H, W, C)."""
    x_BPQC = x_BPNQD.transpose(2, 3).flatten(3)
    x = torch.unflatten(torch.unflatten(x_BPQC, 2, grid.window), 1, grid.windows)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
