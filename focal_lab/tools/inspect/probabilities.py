"""Attention probabilities of a network's blocks, and the tokens of the map that each key stands for.

They are computed from the same q, k, biases and masks as the attention's own output; the network's
computation is not changed.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, K keys per window over all levels, R keys of one level, S tokens of a sub-window, L
levels, T tokens of the map counted from 1, with 0 for none.

Levels are "window" (the query's own), "ring" (the rest of the fine level) and "pooled 1", "pooled 2", ...
(the coarse levels in the order of the options).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones import geometry
from focal_lab.backbones.attention.fused import gather_keys, merge_windows, split_windows
from focal_lab.backbones.attention.key_maps import split_levels
from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.masks import inside_image
from focal_lab.backbones.model import FocalTransformer


class AttentionBlock(NamedTuple):
    """A block of a network.

    Attributes:
        number: counted through all stages from 0, as in the paper's figure 7.
        stage: from 1.
        stride: pixels of the image per token, in both directions.
    """

    number: int
    stage: int
    stride: int
    shifted: bool
    attention: FocalAttention


@dataclass(frozen=True)
class SeenLevel:
    """One query's attention to one level.

    Attributes:
        probabilities_NK: attention to each key of the level; over all levels they sum to 1.
        areas_KHW: the tokens of the map that each key stands for: one, those of a sub-window, or none if the
            key is hidden from the query or lies on padding.
    """

    name: str
    probabilities_NK: Tensor  # noqa: N815
    areas_KHW: Tensor  # noqa: N815

    @property
    def share(self) -> float:
        """The level's part of the query's attention, averaged over heads."""
        return float(self.probabilities_NK.mean(0).sum())

    @property
    def highest(self) -> float:
        """Attention to the key that gets most, averaged over heads."""
        return float(self.probabilities_NK.mean(0).max())

    @property
    def heat_NHW(self) -> Tensor:  # noqa: N802
        """For each token of the map the attention to the keys that stand for it."""
        areas_KHW = self.areas_KHW.to(self.probabilities_NK.dtype)
        return torch.einsum("nk,khw->nhw", self.probabilities_NK, areas_KHW)


@dataclass(frozen=True)
class Attended:
    """One call of an attention, recomputed.

    Attributes:
        probabilities_BPNQK: softmax over the keys of all levels, in the order of the levels.
        visible: which keys exist, boolean (1 or B, P, 1 or Q, K); the others have probability 0.
        output_BHWC: the attention's output computed from these probabilities.
        valid_B2: height and width of the images in tokens, one for each, or one for all.
    """

    grid: WindowGrid
    probabilities_BPNQK: Tensor  # noqa: N815
    visible: Tensor
    output_BHWC: Tensor  # noqa: N815
    valid_B2: Tensor  # noqa: N815

    def at(self, image: int, row: int, column: int) -> list[SeenLevel]:
        """What the token at `row` and `column` of an image's map attends to, finest level first.

        Raises:
            ValueError: the token is outside the map or the image.
        """
        height, width = self.valid_B2[image % len(self.valid_B2)].tolist()
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"token ({row}, {column}) is not on the {height} x {width} map")
        queries_PQ, *keys = self._tokens
        rows, columns = self.grid.map_size
        token = row * columns + column + 1
        window, query = (queries_PQ == token).nonzero()[0].tolist()
        probabilities_NK = self.probabilities_BPNQK[image, window, :, query]
        visible = self.visible[image % len(self.visible), window]
        areas = []
        for tokens_PRS in keys:
            area_RT = tokens_PRS.new_zeros(tokens_PRS.shape[1], 1 + rows * columns)
            area_RT.scatter_(1, tokens_PRS[window], 1)
            areas.append(area_RT[:, 1:].unflatten(1, (rows, columns)) > 0)
        areas_KHW = torch.cat(areas) & visible[query % len(visible)][:, None, None]
        areas_KHW[:, height:] = False
        areas_KHW[:, :, width:] = False
        return [
            SeenLevel(name, probabilities_NK[:, k], areas_KHW[k]) for name, k in key_levels(self.grid).items()
        ]

    def shares(self) -> tuple[dict[str, Tensor], Tensor]:
        """How attention is divided, averaged over the queries on each image, (B, N) each.

        Returns:
            The share of each level; they sum to 1. And the part of all on keys that stand for nothing but
            padding, always 0 with border="mask".
        """
        # which tokens are on each image
        inside_BT = F.pad(inside_image(*self.grid.map_size, self.valid_B2).flatten(1), (1, 0))
        queries_PQ, *keys = self._tokens
        weights_BPQ = inside_BT[:, queries_PQ].to(self.probabilities_BPNQK.dtype)
        weights_BPQ = weights_BPQ.expand(len(self.probabilities_BPNQK), -1, -1)
        # one pass over the probabilities for all levels: summed over queries
        mass_BPNK = torch.einsum("bpnqk,bpq->bpnk", self.probabilities_BPNQK, weights_BPQ)
        mass_BPNK = mass_BPNK / weights_BPQ.sum((1, 2)).clamp(min=1)[:, None, None, None]
        mass_BNK = mass_BPNK.sum(1)
        shares = {name: mass_BNK[:, :, k].sum(-1) for name, k in key_levels(self.grid).items()}
        on_image_BPK = torch.cat([inside_BT[:, tokens_PRS].any(-1) for tokens_PRS in keys], -1)
        return shares, (mass_BPNK * ~on_image_BPK[:, :, None]).sum((1, 3))

    @cached_property
    def _tokens(self) -> list[Tensor]:
        """The tokens T of the queries (P, Q), and of each key of the fine and the coarse levels (P, R, S).

        A map of token numbers is laid out as the attention lays out its tokens. A key beyond the border of a
        map that wraps around stands for the token at the opposite edge; a key on padding for none.
        """
        grid, (height, width) = self.grid, self.grid.map_size
        tokens = torch.arange(1, 1 + height * width, device=self.visible.device).view(1, height, width, 1)
        canvas = geometry.to_canvas(tokens, grid)
        maps = [
            (canvas, grid.window, grid.window),
            (geometry.pad_fine(canvas, grid), grid.window, grid.fine_region),
        ]
        for level in grid.levels:
            cells = geometry.sub_windows(geometry.fit_cells(canvas, grid, level), level.pool_size)
            maps.append((geometry.pad_coarse(cells.flatten(3), level), level.cells, level.region))
        queries, *keys = (
            geometry.regions(x_BHWS, grid.windows, step, region).flatten(3, 4).flatten(0, 2)
            for x_BHWS, step, region in maps
        )
        return [queries[..., 0], *keys]


def network_layers(network: FocalTransformer) -> list[AttentionBlock]:
    """The blocks of a network in the order in which they compute."""
    found: list[AttentionBlock] = []
    for i, stage in enumerate(network.layers):
        for block in cast(Any, stage).blocks:
            stride = network.options.patch_size * 2**i
            found.append(AttentionBlock(len(found), i + 1, stride, block.shifted, block.attn))
    return found


def attended_by_block(
    network: FocalTransformer, frame_BCHW: Tensor, valid_B2: Tensor | None = None
) -> Iterator[tuple[AttentionBlock, Attended, float]]:
    """Run a network in evaluation mode, then recompute the attention of each block from its input.

    One block at a time: the probabilities of a large image's first stage take hundreds of megabytes.

    Yields:
        The block, its attention, and the largest difference between the recomputed output and the block's
        own, relative to the latter's largest value.
    """
    calls: list[tuple[Any, Tensor]] = []
    layers = network_layers(network)
    handles = [
        layer.attention.register_forward_hook(lambda _, arguments, output: calls.append((arguments, output)))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            network.forward_features(frame_BCHW, valid_B2)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (arguments, output) in zip(layers, calls, strict=True):
        with torch.no_grad():
            attended = recompute(layer.attention, *arguments)
            largest = output.abs().max().clamp(min=torch.finfo(output.dtype).tiny)
            error = float((attended.output_BHWC - output).abs().max() / largest)
        yield layer, attended, error


def recompute(
    attention: FocalAttention, x_BHWC: Tensor, shifted: bool = False, valid_B2: Tensor | None = None
) -> Attended:
    """The probabilities of `attention(x_BHWC, shifted, valid_B2)` without dropout. Gradients flow."""
    qkv_BHWC, coarse, bias_NQK, visible, layout = attention.project(x_BHWC, shifted, valid_B2)
    grid, heads = layout.grid, layout.heads
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    if visible is None:
        visible = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=x_BHWC.device)
    if attention.hidden_keys is not None:
        visible = visible & ~attention.hidden_keys
    q_BPNQD = split_windows(q_BHWC, grid.window, heads).flatten(1, 2)
    visible = visible.expand(-1, q_BPNQD.shape[1], -1, bias_NQK.shape[-1])
    k_BPNKD, v_BPNKD = (gather_keys(maps, layout, part).unflatten(1, (-1, heads)) for part in (0, 1))
    scores_BPNQK = q_BPNQD @ k_BPNKD.transpose(3, 4) + bias_NQK
    scores_BPNQK = scores_BPNQK.masked_fill(~visible[:, :, None], float("-inf"))
    probabilities_BPNQK = scores_BPNQK.softmax(-1)
    out_BPNQD = (probabilities_BPNQK @ v_BPNKD).unflatten(1, grid.windows)
    out_BHWC = attention.proj(geometry.from_canvas(merge_windows(out_BPNQD, grid.window), grid))
    if valid_B2 is None:
        valid_B2 = torch.tensor([grid.map_size], device=x_BHWC.device)
    return Attended(grid, probabilities_BPNQK, visible, out_BHWC, valid_B2)


def key_levels(grid: WindowGrid) -> dict[str, Tensor]:
    """The positions of each level's keys among all keys of a window; levels without keys are left out."""
    ring = torch.from_numpy(geometry.ring_positions(grid.window, grid.expand))
    found = {"window": (~ring).nonzero().flatten(), "ring": ring.nonzero().flatten()}
    first = len(ring)
    for number, level in enumerate(grid.levels, 1):
        found[f"pooled {number}"] = torch.arange(first, first + level.keys)
        first += level.keys
    return {name: keys for name, keys in found.items() if len(keys)}
