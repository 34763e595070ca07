"""Focal attention on the CPU in chunks that stay in cache; never all keys and scores at once.

A chunk is some images of a batch, or some rows of windows of one image. Backward gathers the keys and
computes the scores of each chunk again. Tensors are local to a call: no memory is kept or shared.

Shape suffixes: B images, H W canvas height and width, C channels, N heads, D channels per head, P Q windows
down and across, h w height and width of a window or of a level's region, Q queries per window, K keys per
window over all levels, G windows * N of one chunk.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from focal_lab.backbones.attention.key_maps import AttentionLayout, KeyMap, split_levels
from focal_lab.backbones.geometry import regions

# Bytes of keys, values and scores in one chunk
CHUNK_BYTES = 1 << 22


def attend_chunked(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: AttentionLayout,
) -> Tensor:
    """`fused.attend` for tensors on the CPU, without dropout."""
    bias_NQK = bias_NQK.to(qkv_BHWC.dtype)
    out_BHWC: Tensor = _ChunkedAttention.apply(qkv_BHWC, bias_NQK, allowed, layout, *coarse)
    return out_BHWC


class _ChunkedAttention(torch.autograd.Function):
    """Nothing but the inputs is kept for backward."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_BHWC: Tensor,
        bias_NQK: Tensor,
        allowed: Tensor | None,
        layout: AttentionLayout,
        *coarse: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(qkv_BHWC, bias_NQK, allowed, *coarse)
        ctx.layout = layout
        q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
        mask = _additive(allowed, bias_NQK)
        out_BHWC = q_BHWC.new_empty(q_BHWC.shape)
        with torch.autocast("cpu", enabled=False):
            for chunk in _chunks(q_BHWC, bias_NQK, layout):
                q_GQD, k_GKD, v_GKD = chunk.queries(q_BHWC), *chunk.keys(maps)
                out_GQD = torch.bmm(chunk.weights(q_GQD, k_GKD, bias_NQK, mask), v_GKD)
                chunk.put(out_GQD, out_BHWC)
        return out_BHWC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BHWC, bias_NQK, allowed, *coarse = ctx.saved_tensors
        with torch.enable_grad():  # autograd differentiates scaling and padding
            inputs = [tensor.detach().requires_grad_() for tensor in (qkv_BHWC, *coarse)]
            split_BHWC, split = split_levels(inputs[0], inputs[1:], ctx.layout)
        q_BHWC = split_BHWC.detach()
        maps = [level._replace(kv_BHWC=level.kv_BHWC.detach()) for level in split]
        mask = _additive(allowed, bias_NQK)
        grad_q_BHWC = q_BHWC.new_empty(q_BHWC.shape)
        grad_bias_NQK = bias_NQK.new_zeros(bias_NQK.shape)
        grad_maps = [level._replace(kv_BHWC=level.kv_BHWC.new_zeros(level.kv_BHWC.shape)) for level in maps]
        with torch.autocast("cpu", enabled=False):
            for chunk in _chunks(q_BHWC, bias_NQK, ctx.layout):
                q_GQD, k_GKD, v_GKD = chunk.queries(q_BHWC), *chunk.keys(maps)
                weights_GQK = chunk.weights(q_GQD, k_GKD, bias_NQK, mask)
                grad_GQD = chunk.queries(grad_BHWC)
                grad_kv_2GKD = k_GKD.new_empty(2, *k_GKD.shape)
                torch.bmm(weights_GQK.transpose(1, 2), grad_GQD, out=grad_kv_2GKD[1])
                scores_GQK = torch.bmm(grad_GQD, v_GKD.transpose(1, 2))
                torch._softmax_backward_data(
                    scores_GQK, weights_GQK, -1, weights_GQK.dtype, grad_input=scores_GQK
                )
                torch.bmm(scores_GQK.transpose(1, 2), q_GQD, out=grad_kv_2GKD[0])
                grad_bias_NQK += scores_GQK.view(-1, *bias_NQK.shape).sum(0)
                chunk.put(torch.bmm(scores_GQK, k_GKD), grad_q_BHWC)
                chunk.add_keys(grad_kv_2GKD, grad_maps)
        grad_qkv_BHWC, *grad_coarse = torch.autograd.grad(
            [split_BHWC, *(level.kv_BHWC for level in split)],
            inputs,
            [grad_q_BHWC, *(level.kv_BHWC for level in grad_maps)],
        )
        return grad_qkv_BHWC, grad_bias_NQK, None, None, *grad_coarse


def _chunks(q_BHWC: Tensor, bias_NQK: Tensor, layout: AttentionLayout) -> Iterator["_Chunk"]:
    """As many images as fit the budget together; if one alone does not, rows of its windows."""
    images, (rows, columns) = len(q_BHWC), layout.grid.windows
    heads, queries, keys = bias_NQK.shape
    depth = q_BHWC.shape[-1] // heads
    row_bytes = columns * heads * keys * (queries + 2 * depth) * q_BHWC.element_size()
    together = max(1, CHUNK_BYTES // (rows * row_bytes))
    step = math.ceil(rows / min(rows, math.ceil(rows * row_bytes / CHUNK_BYTES))) if together == 1 else rows
    for image in range(0, images, together):
        for row in range(0, rows, step):
            chosen = slice(image, min(image + together, images)), slice(row, min(row + step, rows))
            yield _Chunk(*chosen, layout)


@dataclass(frozen=True)
class _Chunk:
    """Images and rows of windows that are processed together."""

    images: slice
    rows: slice
    layout: AttentionLayout

    def queries(self, x_BHWC: Tensor) -> Tensor:
        """(G, Q, D) of the chunk's windows."""
        x_BPQNhwD = self._windows(x_BHWC)
        return x_BPQNhwD.reshape(-1, math.prod(self.layout.grid.window), x_BPQNhwD.shape[-1])

    def put(self, x_GQD: Tensor, target_BHWC: Tensor) -> None:
        """The inverse of `queries`."""
        target = self._windows(target_BHWC)
        target.copy_(x_GQD.view(target.shape))

    def keys(self, maps: Sequence[KeyMap]) -> Tensor:
        """Keys and values (2, G, K, D)."""
        views = [self._regions(level) for level in maps]
        counts = [math.prod(view.shape[5:7]) for view in views]
        two, *outer, _, _, depth = views[0].shape
        kv = views[0].new_empty(two, *outer, sum(counts), depth)
        for part, view in zip(kv.split(counts, -2), views, strict=True):
            part.unflatten(-2, view.shape[5:7]).copy_(view)
        return kv.view(two, -1, sum(counts), depth)

    def add_keys(self, grad_kv_2GKD: Tensor, grad_maps: Sequence[KeyMap]) -> None:
        """The adjoint of `keys`: add the gradient of every window's keys to the maps that they came from."""
        windows = self.rows.stop - self.rows.start, self.layout.grid.windows[1]
        shape = self.images.stop - self.images.start, *windows, self.layout.heads
        first = 0
        for grad_BHWC, step, region in grad_maps:
            count = math.prod(region)
            level_2GKD = grad_kv_2GKD[:, :, first : first + count]
            level_2BPQNhwD = level_2GKD.unflatten(2, region).unflatten(1, shape)
            down_BPW2NDh = _fold(level_2BPQNhwD.permute(1, 2, 3, 5, 0, 4, 7, 6), 2, step[1]).movedim(3, -1)
            folded_BHW2ND = _fold(down_BPW2NDh, 1, step[0])
            target = grad_BHWC[self.images, self.rows.start * step[0] :].unflatten(3, (2, shape[-1], -1))
            target[:, : folded_BHW2ND.shape[1], : folded_BHW2ND.shape[2]] += folded_BHW2ND
            first += count

    def weights(self, q_GQD: Tensor, k_GKD: Tensor, bias_NQK: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax weights (G, Q, K)."""
        images = self.images.stop - self.images.start
        scores_BPNQK = q_GQD.new_empty(images, len(q_GQD) // (images * len(bias_NQK)), *bias_NQK.shape)
        if mask is None:
            scores_BPNQK.copy_(bias_NQK)
        else:
            columns = self.layout.grid.windows[1]
            mask = mask if len(mask) == 1 else mask[self.images]
            mask = mask[:, self.rows.start * columns : self.rows.stop * columns, None]
            torch.add(bias_NQK, mask.expand(images, -1, -1, -1, -1), out=scores_BPNQK)
        scores_GQK: Tensor = scores_BPNQK.view(-1, *bias_NQK.shape[1:])
        scores_GQK.baddbmm_(q_GQD, k_GKD.transpose(1, 2))
        weights_GQK: Tensor = torch.softmax(scores_GQK, -1, out=scores_GQK)
        return weights_GQK

    def _windows(self, x_BHWC: Tensor) -> Tensor:
        """View (B, P, Q, N, h, w, D)."""
        height, width = self.layout.grid.window
        x_BHWC = x_BHWC[self.images, self.rows.start * height : self.rows.stop * height]
        x_BHWND = x_BHWC.unflatten(3, (self.layout.heads, -1))
        windows: Tensor = x_BHWND.unflatten(2, (-1, width)).unflatten(1, (-1, height))
        return windows.permute(0, 1, 3, 5, 2, 4, 6)

    def _regions(self, level: KeyMap) -> Tensor:
        """View (2, B, P, Q, N, h, w, D) of a level's map."""
        kv_BHWC, step, region = level
        windows = self.rows.stop - self.rows.start, self.layout.grid.windows[1]
        kv = kv_BHWC[self.images, self.rows.start * step[0] :].unflatten(3, (2, self.layout.heads, -1))
        return regions(kv, windows, step, region).permute(5, 0, 1, 2, 6, 3, 4, 7)


def _fold(pieces: Tensor, dim: int, step: int) -> Tensor:
    """The adjoint of `Tensor.unfold(dim, size, step)`; the size is the last dimension.

    Parts of at most one step do not overlap: each is one strided addition.
    """
    windows, size = pieces.shape[dim], pieces.shape[-1]
    length = (windows - 1) * step + size
    folded = pieces.new_zeros(*pieces.shape[:dim], length, *pieces.shape[dim + 1 : -1])
    for first in range(0, size, step):
        part = pieces[..., first : first + step]
        reached = folded.narrow(dim, first, (windows - 1) * step + part.shape[-1])
        reached.unfold(dim, part.shape[-1], step).add_(part)
    return folded


def _additive(allowed: Tensor | None, like: Tensor) -> Tensor | None:
    """0 where a key may be seen and -inf elsewhere: adding it takes a fifth of the time of filling."""
    if allowed is None:
        return None
    return like.new_zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
