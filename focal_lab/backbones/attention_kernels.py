"""The default focal attention: equal to `attention_reference`, arranged for speed.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, R keys of one level, K keys per window over all levels, G = B * P * N.

On CPU the keys of all windows never exist at once: images, or rows of windows of one image, are processed
in chunks whose keys and scores stay in cache, and backward computes the scores again instead of storing
them. On other devices torch's fused attention gets the whole batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from focal_lab.backbones.geometry import add_regions, regions
from focal_lab.backbones.options import Size

# Bytes of scores in one chunk. Measured on 2 cores with 512 KiB of L2 each: flat from 2 to 4 MB, slower
# beyond by page faults and cache misses.
CHUNK_BYTES = 1 << 21


@dataclass(frozen=True)
class KeyMap:
    """One level's k and v, and how windows look at them.

    Attributes:
        kv_BHWC: padded map, k in the first half of the channels and v in the second.
        windows: windows per direction.
        step: distance of neighbouring windows' regions, in this map's tokens.
        region: extent of a region.
    """

    kv_BHWC: Tensor  # noqa: N815
    windows: Size
    step: Size
    region: Size

    @property
    def keys(self) -> int:
        """Keys that this level gives to each query."""
        return self.region[0] * self.region[1]


def attend(
    q_BHWC: Tensor,
    maps: Sequence[KeyMap],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    window: Size,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention of every window's queries over its keys of all levels.

    Args:
        q_BHWC: scaled queries on the canvas (whole windows).
        maps: the levels, fine first.
        bias_NQK: position biases, keys in the order of the levels.
        allowed: boolean (1 or B, P, 1 or Q, K), None when every key may be seen.
        window: side of a window in tokens.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, H, W, C) on the canvas.
    """
    if q_BHWC.device.type == "cpu" and not dropout and not in_graph():
        layout = _Layout(tuple((level.windows, level.step, level.region) for level in maps), window)
        out: Tensor = _ChunkedAttention.apply(q_BHWC, bias_NQK, allowed, layout, *(m.kv_BHWC for m in maps))
        return out
    return attend_at_once(q_BHWC, maps, bias_NQK, allowed, window, dropout)


def in_graph() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is recording what is computed."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def attend_at_once(
    q_BHWC: Tensor,
    maps: Sequence[KeyMap],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    window: Size,
    dropout: float = 0.0,
) -> Tensor:
    """`attend` for the whole batch by torch's attention; the way for GPUs, tracing and counting."""
    heads, batch = bias_NQK.shape[0], q_BHWC.shape[0]
    q_BPNQD = _split_windows(q_BHWC, window, heads)
    kv_2BPNKD = torch.cat([_gather_keys(level, heads) for level in maps], -2)
    windows, channels = q_BPNQD.shape[1] * q_BPNQD.shape[2], q_BPNQD.shape[-1]
    queries, keys = bias_NQK.shape[1:]
    # windows and heads in one dimension: the mask then broadcasts over the batch without being copied
    bias_BPNQK = bias_NQK.to(q_BHWC.dtype).expand(1, windows, -1, -1, -1)
    if allowed is not None:
        bias_BPNQK = bias_BPNQK.where(allowed[:, :, None], float("-inf"))
    out_BGQD = F.scaled_dot_product_attention(
        q_BPNQD.reshape(batch, windows * heads, queries, channels),
        kv_2BPNKD[0].reshape(batch, windows * heads, keys, channels),
        kv_2BPNKD[1].reshape(batch, windows * heads, keys, channels),
        attn_mask=bias_BPNQK.reshape(-1, windows * heads, queries, keys),
        dropout_p=dropout,
        scale=1.0,
    )
    return _merge_windows(out_BGQD.reshape(q_BPNQD.shape), window)


def _split_windows(x_BHWC: Tensor, window: Size, heads: int) -> Tensor:
    """View (B, windows down, windows across, N, Q, D) of a canvas; copies only to flatten Q."""
    batch, height, width, channels = x_BHWC.shape
    rows, columns = height // window[0], width // window[1]
    x = x_BHWC.view(batch, rows, window[0], columns, window[1], heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, rows, columns, heads, -1, channels // heads)


def _merge_windows(x_BPNQD: Tensor, window: Size) -> Tensor:
    """The inverse of `_split_windows`: (B, H, W, C)."""
    batch, rows, columns, heads, _, channels = x_BPNQD.shape
    x = x_BPNQD.reshape(batch, rows, columns, heads, *window, channels).permute(0, 1, 4, 2, 5, 3, 6)
    # A copy even where a single window's strides would do as they are: torch's attention and what an exporter
    # replaces it by return different strides, and a view that fits the one fails with the other.
    x = x.clone(memory_format=torch.contiguous_format)
    return x.view(batch, rows * window[0], columns * window[1], heads * channels)


def _gather_keys(level: KeyMap, heads: int) -> Tensor:
    """(2, B, windows down, windows across, N, R, D): k and v of every window's region."""
    kv = level.kv_BHWC
    kv_BHW2ND = kv.reshape(*kv.shape[:3], 2, heads, kv.shape[3] // (2 * heads))
    view = regions(kv_BHW2ND, level.windows, level.step, level.region)
    return view.permute(5, 0, 1, 2, 6, 3, 4, 7).flatten(5, 6)


@dataclass(frozen=True)
class _Layout:
    """Everything about an attention that is no tensor: (windows, step, region) per level, the window."""

    levels: tuple[tuple[Size, Size, Size], ...]
    window: Size


@dataclass(frozen=True)
class _Chunk:
    """Images and rows of windows that are processed together."""

    images: slice
    rows: slice

    def of_canvas(self, x_BHWC: Tensor, window: Size) -> Tensor:
        return x_BHWC[self.images, self.rows.start * window[0] : self.rows.stop * window[0]]

    def of_level(self, kv_BHWC: Tensor, layout: tuple[Size, Size, Size]) -> tuple[Tensor, Size, Size, Size]:
        """The part of a level's map that these windows see, with the windows, step and region on it."""
        windows, step, region = layout
        rows = self.rows.stop - self.rows.start
        top = self.rows.start * step[0]
        part = kv_BHWC[self.images, top : top + (rows - 1) * step[0] + region[0]]
        return part, (rows, windows[1]), step, region


class _ChunkedAttention(torch.autograd.Function):
    """Chunks that stay in cache; nothing but the inputs is kept for backward."""

    @staticmethod
    def forward(
        ctx: Any, q_BHWC: Tensor, bias_NQK: Tensor, allowed: Tensor | None, layout: _Layout, *kvs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(q_BHWC, bias_NQK, allowed, *kvs)
        ctx.layout = layout
        out_BHWC = torch.empty_like(q_BHWC, memory_format=torch.contiguous_format)
        bias_NQK, mask = bias_NQK.to(q_BHWC.dtype), _additive(allowed, q_BHWC.dtype)
        buffers = _Buffers()
        for chunk in _chunks(q_BHWC, bias_NQK, layout):
            _, kv_2GKD, weights_GQK = _weights(q_BHWC, bias_NQK, mask, layout, kvs, chunk, buffers)
            values_GQD = buffers.like(
                "values", kv_2GKD, (weights_GQK.shape[0], weights_GQK.shape[1], kv_2GKD.shape[3])
            )
            torch.bmm(weights_GQK, kv_2GKD[1], out=values_GQD)
            _as_windows(chunk.of_canvas(out_BHWC, layout.window), layout.window, bias_NQK.shape[0]).copy_(
                _unflatten(values_GQD, chunk, layout, bias_NQK.shape[0])
            )
        return out_BHWC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        q_BHWC, bias_full, allowed, *kvs = ctx.saved_tensors
        layout: _Layout = ctx.layout
        bias_NQK, mask = bias_full.to(q_BHWC.dtype), _additive(allowed, q_BHWC.dtype)
        heads, queries, keys = bias_NQK.shape
        grad_q = torch.empty_like(q_BHWC, memory_format=torch.contiguous_format)
        grad_kvs = [torch.zeros_like(kv, memory_format=torch.contiguous_format) for kv in kvs]
        grad_bias = torch.zeros(heads, queries, keys, dtype=bias_full.dtype, device=bias_full.device)
        buffers = _Buffers()
        for chunk in _chunks(q_BHWC, bias_NQK, layout):
            q_GQD, kv_2GKD, weights_GQK = _weights(q_BHWC, bias_NQK, mask, layout, kvs, chunk, buffers)
            grad_GQD = _flatten_windows(
                chunk.of_canvas(grad_BHWC, layout.window), layout.window, heads, buffers, "grad"
            )
            grad_kv_2GKD = buffers.like("grad_kv", kv_2GKD, kv_2GKD.shape)
            torch.bmm(weights_GQK.transpose(1, 2), grad_GQD, out=grad_kv_2GKD[1])
            grad_GQK = buffers.like("grad_weights", weights_GQK, weights_GQK.shape)
            torch.bmm(grad_GQD, kv_2GKD[1].transpose(1, 2), out=grad_GQK)
            # softmax: ds = w * (dw - sum(w * dw))
            grad_scores_GQK = buffers.like("grad_scores", weights_GQK, weights_GQK.shape)
            torch._softmax_backward_data(
                grad_GQK, weights_GQK, -1, weights_GQK.dtype, grad_input=grad_scores_GQK
            )
            grad_bias += grad_scores_GQK.view(-1, heads, queries, keys).sum(0)
            torch.bmm(grad_scores_GQK.transpose(1, 2), q_GQD, out=grad_kv_2GKD[0])
            torch.bmm(grad_scores_GQK, kv_2GKD[0], out=q_GQD)
            _as_windows(chunk.of_canvas(grad_q, layout.window), layout.window, heads).copy_(
                _unflatten(q_GQD, chunk, layout, heads)
            )
            _scatter_keys(grad_kv_2GKD, grad_kvs, layout, chunk, heads)
        return grad_q, grad_bias, None, None, *grad_kvs


class _Buffers:
    """Scratch memory reused from chunk to chunk: fresh large allocations cost page faults."""

    def __init__(self) -> None:
        self.stores: dict[str, Tensor] = {}

    def like(self, name: str, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Uninitialised memory of that shape, with the dtype and device of `tensor`."""
        size = 1
        for extent in shape:
            size *= extent
        if name not in self.stores or self.stores[name].numel() < size:
            self.stores[name] = torch.empty(size, dtype=tensor.dtype, device=tensor.device)
        return self.stores[name][:size].view(*shape)


def _chunks(q_BHWC: Tensor, bias_NQK: Tensor, layout: _Layout) -> Iterator[_Chunk]:
    """Whole images while their scores fit the budget, else rows of windows of one image."""
    rows, columns = layout.levels[0][0]
    row_bytes = columns * bias_NQK.numel() * q_BHWC.element_size()
    images = max(1, min(q_BHWC.shape[0], CHUNK_BYTES // (rows * row_bytes)))
    step = max(1, min(rows, CHUNK_BYTES // row_bytes)) if images == 1 else rows
    for first in range(0, q_BHWC.shape[0], images):
        for top in range(0, rows, step):
            yield _Chunk(
                slice(first, min(first + images, q_BHWC.shape[0])), slice(top, min(top + step, rows))
            )


def _additive(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """0 where a key may be seen and -inf elsewhere: adding it takes a fifth of the time of filling."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, float("-inf")
    )


def _weights(
    q_BHWC: Tensor,
    bias_NQK: Tensor,
    mask: Tensor | None,
    layout: _Layout,
    kvs: Sequence[Tensor],
    chunk: _Chunk,
    buffers: _Buffers,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (G, Q, D), keys and values (2, G, K, D) and softmax weights (G, Q, K) of a chunk."""
    heads, queries, keys = bias_NQK.shape
    q_GQD = _flatten_windows(chunk.of_canvas(q_BHWC, layout.window), layout.window, heads, buffers, "q")
    groups, channels = q_GQD.shape[0], q_GQD.shape[2]
    kv_2GKD = buffers.like("kv", q_GQD, (2, groups, keys, channels))
    first = 0
    for kv, level in zip(kvs, layout.levels, strict=True):
        part, windows, step, region = chunk.of_level(kv, level)
        count = region[0] * region[1]
        view = regions(torch.unflatten(part, -1, (2, heads, channels)), windows, step, region)
        target = kv_2GKD.view(2, part.shape[0], *windows, heads, keys, channels)[
            ..., first : first + count, :
        ]
        torch.unflatten(target, -2, region).copy_(view.permute(5, 0, 1, 2, 6, 3, 4, 7))
        first += count
    scores_GQK = buffers.like("scores", q_GQD, (groups, queries, keys))
    torch.bmm(q_GQD, kv_2GKD[0].transpose(1, 2), out=scores_GQK)
    scores_BPNQK = scores_GQK.view(-1, groups // heads // q_BHWC[chunk.images].shape[0], heads, queries, keys)
    scores_BPNQK.add_(bias_NQK)
    if mask is not None:
        columns = layout.levels[0][0][1]
        if mask.shape[0] > 1:
            mask = mask[chunk.images]
        scores_BPNQK.add_(mask[:, chunk.rows.start * columns : chunk.rows.stop * columns, None])
    weights_GQK = buffers.like("weights", q_GQD, scores_GQK.shape)
    torch.softmax(scores_GQK, -1, out=weights_GQK)
    return q_GQD, kv_2GKD, weights_GQK


def _scatter_keys(
    grad_kv_2GKD: Tensor, grad_kvs: Sequence[Tensor], layout: _Layout, chunk: _Chunk, heads: int
) -> None:
    """Add the gradient of every window's keys to the maps they came from."""
    keys, channels = grad_kv_2GKD.shape[2:]
    first = 0
    for grad_kv, level in zip(grad_kvs, layout.levels, strict=True):
        part, windows, step, region = chunk.of_level(grad_kv, level)
        count = region[0] * region[1]
        source = grad_kv_2GKD.view(2, part.shape[0], *windows, heads, keys, channels)
        source = torch.unflatten(source[..., first : first + count, :], -2, region)
        add_regions(
            torch.unflatten(part, -1, (2, heads, channels)), source.permute(1, 2, 3, 5, 6, 0, 4, 7), step
        )
        first += count


def _as_windows(x_BHWC: Tensor, window: Size, heads: int) -> Tensor:
    """View (B, windows down, windows across, N, window height, window width, D)."""
    x = torch.unflatten(x_BHWC, 3, (heads, -1))
    x = torch.unflatten(torch.unflatten(x, 2, (-1, window[1])), 1, (-1, window[0]))
    return x.permute(0, 1, 3, 5, 2, 4, 6)


def _flatten_windows(x_BHWC: Tensor, window: Size, heads: int, buffers: _Buffers, name: str) -> Tensor:
    """Copy of a canvas part in the order (G, Q, D)."""
    view = _as_windows(x_BHWC, window, heads)
    flat = buffers.like(name, x_BHWC, view.shape)
    flat.copy_(view)
    return flat.view(-1, window[0] * window[1], view.shape[-1])


def _unflatten(x_GQD: Tensor, chunk: _Chunk, layout: _Layout, heads: int) -> Tensor:
    """(G, Q, D) as `_as_windows` shows it."""
    rows, columns = chunk.rows.stop - chunk.rows.start, layout.levels[0][0][1]
    return x_GQD.view(-1, rows, columns, heads, *layout.window, x_GQD.shape[-1])
