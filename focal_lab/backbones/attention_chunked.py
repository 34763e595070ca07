"""Focal attention on the processor: nothing as large as all windows' keys or scores ever exists.

Shape suffixes: B batch, H W canvas height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, R keys of one level, K keys per window over all levels, G = images * windows * N
of one chunk.

Pictures, or rows of windows of one picture, are processed in chunks whose keys and scores stay in cache.
Backward computes the scores again instead of storing them, unless those of the whole batch are small.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from focal_lab.backbones.geometry import WindowGrid, pad_coarse
from focal_lab.backbones.options import Size
from focal_lab.backbones.scratch import scratch_of

# Bytes of scores in one chunk. Measured on 2 cores with 1 MiB of L2 each: flat from 2 to 4 MiB, a tenth
# slower at 1 MiB, a quarter slower from 8 MiB on.
CHUNK_BYTES = 1 << 22
# Softmax weights of a whole call that training keeps for backward; beyond, they are computed again.
KEPT_BYTES = 1 << 24


@dataclass(frozen=True)
class Layout:
    """Everything about an attention that is no tensor.

    Attributes:
        grid: how windows lie.
        heads: N.
        scale: factor of the scores.
        keep: whether a backward will follow.
    """

    grid: WindowGrid
    heads: int
    scale: float
    keep: bool = False


def attend_chunked(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: Layout,
) -> Tensor:
    """`attention_kernels.attend` for tensors on the processor, without dropout."""
    training = torch.is_grad_enabled() and (qkv_BHWC.requires_grad or bias_NQK.requires_grad)
    layout = dataclasses.replace(layout, keep=training)
    out: Tensor = _ChunkedAttention.apply(qkv_BHWC, bias_NQK, allowed, layout, *coarse)
    return out


class _ChunkedAttention(torch.autograd.Function):
    """Nothing but the inputs is kept for backward, and the softmax weights where they are small."""

    @staticmethod
    def forward(
        ctx: Any, qkv_BHWC: Tensor, bias_NQK: Tensor, allowed: Tensor | None, layout: Layout, *coarse: Tensor
    ) -> Tensor:
        batch, height, width, channels = qkv_BHWC.shape
        out_BHWC = qkv_BHWC.new_empty(batch, height, width, channels // 3)
        work = _Work(qkv_BHWC, coarse, bias_NQK, allowed, layout)
        kept = work.empty_weights() if layout.keep else None
        ctx.save_for_backward(qkv_BHWC, bias_NQK, allowed, kept, *coarse)
        ctx.layout = layout
        for pictures in work.groups():
            for chunk in work.chunks(pictures):
                _, kv_2GKD = work.gather(chunk)
                weights_GQK = work.weights(chunk, kept)
                values_GQD = work.scratch("values", (*weights_GQK.shape[:2], kv_2GKD.shape[3]))
                torch.bmm(weights_GQK, kv_2GKD[1], out=values_GQD)
                work.windows(out_BHWC, chunk).copy_(work.as_windows(values_GQD, chunk))
        return out_BHWC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BHWC, bias_NQK, allowed, kept, *coarse = ctx.saved_tensors
        work = _Work(qkv_BHWC, coarse, bias_NQK, allowed, ctx.layout)
        heads, queries, keys = bias_NQK.shape
        channels = qkv_BHWC.shape[3] // 3
        grad_BHWC = grad_BHWC.contiguous()
        grad_qkv = torch.empty_like(qkv_BHWC, memory_format=torch.contiguous_format)
        grad_bias = torch.zeros_like(bias_NQK, memory_format=torch.contiguous_format)
        grad_coarse = [torch.zeros_like(level.kv) for level in work.levels[1:]]
        for pictures in work.groups():
            grad_fine = work.empty_halo(grad_qkv, pictures, "grad halo").zero_()
            for chunk in work.chunks(pictures):
                q_GQD, kv_2GKD = work.gather(chunk)
                weights_GQK = work.weights(chunk, None) if kept is None else work.of_chunk(kept, chunk)
                grad_GQD = work.scratch("grad", q_GQD.shape)
                work.as_windows(grad_GQD, chunk).copy_(work.windows(grad_BHWC, chunk))
                grad_kv_2GKD = work.scratch("grad kv", kv_2GKD.shape)
                torch.bmm(weights_GQK.transpose(1, 2), grad_GQD, out=grad_kv_2GKD[1])
                scores_GQK = work.scratch("grad scores", weights_GQK.shape)
                torch.bmm(grad_GQD, kv_2GKD[1].transpose(1, 2), out=scores_GQK)
                # softmax: ds = w * (dw - sum(w * dw))
                torch._softmax_backward_data(
                    scores_GQK, weights_GQK, -1, weights_GQK.dtype, grad_input=scores_GQK
                )
                grad_bias += scores_GQK.view(-1, heads, queries, keys).sum(0)
                torch.bmm(scores_GQK.transpose(1, 2), q_GQD, out=grad_kv_2GKD[0])
                torch.bmm(scores_GQK, kv_2GKD[0], out=grad_GQD)
                grad_GQD *= ctx.layout.scale
                work.windows(grad_qkv[..., :channels], chunk).copy_(work.as_windows(grad_GQD, chunk))
                work.scatter(grad_kv_2GKD, [grad_fine, *(g[pictures] for g in grad_coarse)], chunk)
            work.fold(grad_fine, grad_qkv[pictures, ..., channels:])
        inner = [_without_border(g, c) for g, c in zip(grad_coarse, coarse, strict=True)]
        return grad_qkv, grad_bias, None, None, *inner


@dataclass(frozen=True)
class _Level:
    """A map of keys and values, and how windows look at it: see `attention_kernels.KeyMap`."""

    kv: Tensor
    step: Size
    region: Size


@dataclass(frozen=True)
class _Chunk:
    """Pictures and rows of windows that are processed together, and the pictures' levels."""

    pictures: slice
    rows: slice
    levels: tuple[_Level, ...]


class _Work:
    """The tensors of one call and the steps that forward and backward share."""

    def __init__(
        self,
        qkv_BHWC: Tensor,
        coarse: Sequence[Tensor],
        bias_NQK: Tensor,
        allowed: Tensor | None,
        layout: Layout,
    ) -> None:
        self.layout, self.grid, self.heads = layout, layout.grid, layout.heads
        dtype = qkv_BHWC.dtype
        self.qkv_BHWC = qkv_BHWC.contiguous()
        self.bias_NQK, self.mask = bias_NQK.to(dtype), _additive(allowed, dtype)
        self.dim = qkv_BHWC.shape[3] // 3
        grid = self.grid
        fine = _Level(qkv_BHWC, grid.window, grid.fine_region)  # its map is made for each group of pictures
        self.levels = (
            fine,
            *(
                _Level(pad_coarse(kv, level).contiguous(), level.cells, level.region)
                for kv, level in zip(coarse, grid.levels, strict=True)
            ),
        )
        self._scratch = scratch_of(dtype)

    def scratch(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uninitialised memory for one purpose."""
        return self._scratch.take(f"attention {name}", shape)

    def groups(self) -> Iterator[slice]:
        """Pictures whose scores fit the budget together; at least one."""
        rows, row_bytes = self.grid.windows[0], self._row_bytes()
        step = max(1, CHUNK_BYTES // (rows * row_bytes))
        for first in range(0, self.qkv_BHWC.shape[0], step):
            yield slice(first, min(first + step, self.qkv_BHWC.shape[0]))

    def chunks(self, pictures: slice) -> Iterator[_Chunk]:
        """A group at once, or rows of windows of its one picture."""
        fine = self._halo(pictures)
        levels = (
            _Level(fine, self.levels[0].step, self.levels[0].region),
            *(_Level(level.kv[pictures], level.step, level.region) for level in self.levels[1:]),
        )
        rows = self.grid.windows[0]
        count = (
            math.ceil(rows * self._row_bytes() / CHUNK_BYTES) if pictures.stop - pictures.start == 1 else 1
        )
        step = math.ceil(rows / min(count, rows))
        for top in range(0, rows, step):
            yield _Chunk(pictures, slice(top, min(top + step, rows)), levels)

    def _row_bytes(self) -> int:
        return self.grid.windows[1] * self.bias_NQK.numel() * self.bias_NQK.element_size()

    def empty_halo(self, qkv_BHWC: Tensor, pictures: slice, name: str) -> Tensor:
        """Memory for k and v of some pictures with the ring's tokens around them."""
        (rows, columns), (height, width) = self.grid.expand, self.grid.canvas
        shape = (pictures.stop - pictures.start, height + 2 * rows, width + 2 * columns, 2 * self.dim)
        return self.scratch(name, shape)

    def _halo(self, pictures: slice) -> Tensor:
        """k and v with `expand` tokens around: the opposite edge's (wrap), or zeros that a mask hides."""
        kv_BHWC = self.qkv_BHWC[pictures, ..., self.dim :]
        top, left = self.grid.expand
        if not top and not left:
            return kv_BHWC
        halo = self.empty_halo(self.qkv_BHWC, pictures, "halo")
        height, width = self.grid.canvas
        inner = halo[:, top : top + height]
        inner[:, :, left : left + width] = kv_BHWC
        if self.grid.masked:
            inner[:, :, :left] = 0
            inner[:, :, left + width :] = 0
            halo[:, :top] = 0
            halo[:, top + height :] = 0
        else:
            inner[:, :, :left] = kv_BHWC[:, :, width - left :]
            inner[:, :, left + width :] = kv_BHWC[:, :, :left]
            halo[:, :top] = halo[:, height : height + top]
            halo[:, top + height :] = halo[:, top : 2 * top]
        return halo

    def fold(self, halo: Tensor, target_BHWC: Tensor) -> None:
        """The adjoint of `_halo`: what the ring's tokens got goes to where they came from."""
        top, left = self.grid.expand
        height, width = self.grid.canvas
        if not self.grid.masked and top:
            halo[:, height : height + top] += halo[:, :top]
            halo[:, top : 2 * top] += halo[:, top + height :]
        inner = halo[:, top : top + height]
        target_BHWC.copy_(inner[:, :, left : left + width])
        if not self.grid.masked and left:
            target_BHWC[:, :, width - left :] += inner[:, :, :left]
            target_BHWC[:, :, :left] += inner[:, :, left + width :]

    def gather(self, chunk: _Chunk) -> tuple[Tensor, Tensor]:
        """Scaled queries (G, Q, D), and keys and values (2, G, K, D)."""
        heads, queries, keys = self.bias_NQK.shape
        columns, channels = self.grid.windows[1], self.dim // heads
        groups = self._windows(chunk) * heads
        q_GQD = self.scratch("q", (groups, queries, channels))
        self.as_windows(q_GQD, chunk).copy_(self.windows(self.qkv_BHWC[..., : self.dim], chunk))
        q_GQD *= self.layout.scale
        kv_2GKD = self.scratch("kv", (2, groups, keys, channels))
        first = 0
        for level in chunk.levels:
            view, count = _regions(level, chunk.rows, columns, heads), level.region[0] * level.region[1]
            _of_level(kv_2GKD, view.shape, first, count).copy_(view)
            first += count
        return q_GQD, kv_2GKD

    def empty_weights(self) -> Tensor | None:
        """Memory for the softmax weights (pictures * windows * N, Q, K) of all chunks, if it is little."""
        heads, queries, keys = self.bias_NQK.shape
        groups = self.qkv_BHWC.shape[0] * math.prod(self.grid.windows) * heads
        if groups * queries * keys * self.bias_NQK.element_size() > KEPT_BYTES:
            return None
        return self.bias_NQK.new_empty(groups, queries, keys)

    def of_chunk(self, weights_GQK: Tensor, chunk: _Chunk) -> Tensor:
        """A chunk's part of `empty_weights`."""
        rows, columns = self.grid.windows
        first = (chunk.pictures.start * rows + chunk.rows.start) * columns * self.heads
        return weights_GQK[first : first + self._windows(chunk) * self.heads]

    def _windows(self, chunk: _Chunk) -> int:
        pictures: int = chunk.pictures.stop - chunk.pictures.start
        rows: int = chunk.rows.stop - chunk.rows.start
        return pictures * rows * self.grid.windows[1]

    def weights(self, chunk: _Chunk, kept: Tensor | None) -> Tensor:
        """Softmax weights (G, Q, K) of what was gathered last, in scratch memory or where they are kept."""
        heads, queries, keys = self.bias_NQK.shape
        columns, windows = self.grid.windows[1], self._windows(chunk)
        q_GQD = self.scratch("q", (windows * heads, queries, self.dim // heads))
        kv_2GKD = self.scratch("kv", (2, windows * heads, keys, self.dim // heads))
        shape = (windows * heads, queries, keys)
        scores_GQK = self.scratch("scores", shape) if kept is None else self.of_chunk(kept, chunk)
        torch.bmm(q_GQD, kv_2GKD[0].transpose(1, 2), out=scores_GQK)
        scores_PNQK = scores_GQK.view(windows, heads, queries, keys)
        scores_PNQK.add_(self.bias_NQK)
        if self.mask is not None:
            mask = self.mask if self.mask.shape[0] == 1 else self.mask[chunk.pictures]
            mask = mask[:, chunk.rows.start * columns : chunk.rows.stop * columns, None]
            scores_PNQK.view(-1, mask.shape[1], heads, queries, keys).add_(mask)
        return torch.softmax(scores_GQK, -1, out=scores_GQK)

    def scatter(self, grad_kv_2GKD: Tensor, targets: Sequence[Tensor], chunk: _Chunk) -> None:
        """Add the gradient of every window's keys to the maps that they came from."""
        columns, first = self.grid.windows[1], 0
        for level, target in zip(chunk.levels, targets, strict=True):
            count = level.region[0] * level.region[1]
            shape = (
                2,
                target.shape[0],
                chunk.rows.stop - chunk.rows.start,
                columns,
                self.heads,
                *level.region,
                -1,
            )
            source = _of_level(grad_kv_2GKD, shape, first, count)
            _add_regions(_Level(target, level.step, level.region), source, chunk.rows)
            first += count

    def windows(self, x_BHWC: Tensor, chunk: _Chunk) -> Tensor:
        """View (B, windows down, windows across, N, window height, window width, D) of a chunk."""
        (height, width), heads = self.grid.window, self.heads
        strides, depth = x_BHWC.stride(), x_BHWC.shape[3] // heads
        return x_BHWC.as_strided(
            self._windows_shape(chunk, depth),
            (strides[0], height * strides[1], width * strides[2], depth, strides[1], strides[2], 1),
            x_BHWC.storage_offset()
            + chunk.pictures.start * strides[0]
            + chunk.rows.start * height * strides[1],
        )

    def as_windows(self, x_GQD: Tensor, chunk: _Chunk) -> Tensor:
        """(G, Q, D) as `windows` shows it."""
        return x_GQD.view(self._windows_shape(chunk, x_GQD.shape[2]))

    def _windows_shape(self, chunk: _Chunk, depth: int) -> tuple[int, ...]:
        return (
            chunk.pictures.stop - chunk.pictures.start,
            chunk.rows.stop - chunk.rows.start,
            self.grid.windows[1],
            self.heads,
            *self.grid.window,
            depth,
        )


def _regions(level: _Level, rows: slice, columns: int, heads: int) -> Tensor:
    """View (2, B, rows of windows, windows across, N, region height, region width, D) of a level."""
    kv, (down, across), region = level.kv, level.step, level.region
    batch, y, x, _ = kv.stride()
    depth = kv.shape[3] // (2 * heads)
    return kv.as_strided(
        (2, kv.shape[0], rows.stop - rows.start, columns, heads, *region, depth),
        (heads * depth, batch, down * y, across * x, depth, y, x, 1),
        kv.storage_offset() + rows.start * down * y,
    )


def _of_level(kv_2GKD: Tensor, shape: Sequence[int], first: int, count: int) -> Tensor:
    """A level's keys in the memory of all, in the shape of `_regions`."""
    two, batch, rows, columns, heads, height, width, _ = shape
    keys, depth = kv_2GKD.shape[2:]
    window = keys * depth
    return kv_2GKD.as_strided(
        (two, batch, rows, columns, heads, height, width, depth),
        (
            kv_2GKD.stride(0),
            rows * columns * heads * window,
            columns * heads * window,
            heads * window,
            window,
            width * depth,
            depth,
            1,
        ),
        kv_2GKD.storage_offset() + first * depth,
    )


def _add_regions(target: _Level, source: Tensor, rows: slice) -> None:
    """Add regions, in the shape of `_regions`, to the map that they were read from.

    Pieces of at most one step do not overlap between windows: each is one strided addition. Where regions
    reach over many windows they are added up along one direction first, else there would be a piece for
    each pair of offsets.
    """
    kv, (down, across), (height, width) = target.kv, target.step, target.region
    two, batch, count, columns, heads, _, _, depth = source.shape
    pieces = math.ceil(height / down), math.ceil(width / across)
    if pieces[0] * pieces[1] <= 4:
        for top in range(0, height, down):
            for left in range(0, width, across):
                size = min(down, height - top), min(across, width - left)
                _piece(kv, rows, columns, heads, (top, left), target.step, size).add_(
                    source[..., top : top + size[0], left : left + size[1], :]
                )
        return
    length = (count - 1) * down + height
    summed = source.new_zeros(two, batch, length, columns, heads, width, depth)
    s = summed.stride()
    for top in range(0, height, down):
        tall = min(down, height - top)
        summed.as_strided(
            (two, batch, count, columns, heads, tall, width, depth),
            (s[0], s[1], down * s[2], s[3], s[4], s[2], s[5], 1),
            top * s[2],
        ).add_(source[..., top : top + tall, :, :])
    y, x = kv.stride()[1:3]
    for left in range(0, width, across):
        wide = min(across, width - left)
        kv.as_strided(
            (two, batch, length, columns, heads, wide, depth),
            (heads * depth, kv.stride(0), y, across * x, depth, x, 1),
            kv.storage_offset() + rows.start * down * y + left * x,
        ).add_(summed[..., left : left + wide, :])


def _piece(kv: Tensor, rows: slice, columns: int, heads: int, first: Size, step: Size, size: Size) -> Tensor:
    """The tokens of all windows' regions from `first` on, `size` of them in each direction."""
    batch, y, x, _ = kv.stride()
    depth = kv.shape[3] // (2 * heads)
    return kv.as_strided(
        (2, kv.shape[0], rows.stop - rows.start, columns, heads, *size, depth),
        (heads * depth, batch, step[0] * y, step[1] * x, depth, y, x, 1),
        kv.storage_offset() + (rows.start * step[0] + first[0]) * y + first[1] * x,
    )


def _without_border(padded: Tensor, like: Tensor) -> Tensor:
    """The middle of a padded map, as large as `like`."""
    top, left = (padded.shape[1] - like.shape[1]) // 2, (padded.shape[2] - like.shape[2]) // 2
    return padded[:, top : top + like.shape[1], left : left + like.shape[2]]


def _additive(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """0 where a key may be seen and -inf elsewhere: adding it takes a fifth of the time of filling."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, float("-inf")
    )
