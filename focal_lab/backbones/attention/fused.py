"""The default focal attention: equal to `attention_reference`, arranged for speed.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, R keys of one level, K keys per window over all levels, G = P * N.

On the processor `attention_chunked` works in chunks that stay in cache. On other devices torch's fused
attention gets the whole batch at once; the keys of all windows then exist while it runs, but are not kept for
backward: they are gathered again.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from focal_lab.backbones.attention.key_maps import KeyMap, Layout, split_levels
from focal_lab.backbones.attention.reference import attend_reference
from focal_lab.backbones.cpu.attention import attend_chunked
from focal_lab.backbones.cpu.dispatch import in_graph, is_transformed
from focal_lab.backbones.geometry import regions
from focal_lab.backbones.options import Size

# Maps of so few windows, with scores of so many bytes an image, gain nothing from chunks (the digits models)
FEW_WINDOWS = 4
FEW_BYTES = 1 << 18


def attend(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: Layout,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention of every window's queries over its keys of all levels.

    Args:
        qkv_BHWC: q, k and v (3 C channels) on the canvas (whole windows).
        coarse: k and v (B, grid height, grid width, 2 C) of each coarse level's pooled tokens.
        bias_NQK: position biases, keys in the order of the levels.
        allowed: boolean (1 or B, P, 1 or Q, K), None when every key may be seen.
        layout: how windows lie, the heads and the factor of the scores.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, H, W, C) on the canvas.
    """
    # a fake tensor says that it lies on the processor, but has no memory to work in
    if type(qkv_BHWC) is Tensor and qkv_BHWC.device.type == "cpu" and not dropout and not in_graph():
        windows = math.prod(layout.grid.windows)
        score_bytes = windows * bias_NQK.numel() * qkv_BHWC.element_size()
        few = windows <= FEW_WINDOWS and score_bytes <= FEW_BYTES
        return (attend_reference if few else attend_chunked)(qkv_BHWC, coarse, bias_NQK, allowed, layout)
    return attend_at_once(qkv_BHWC, coarse, bias_NQK, allowed, layout, dropout)


def attend_at_once(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: Layout,
    dropout: float = 0.0,
) -> Tensor:
    """`attend` for the whole batch by torch's attention; the way for GPUs, tracing and counting."""
    heads, window, batch = layout.heads, layout.grid.window, qkv_BHWC.shape[0]
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    q_BPNQD = _split_windows(q_BHWC, window, heads)
    windows, channels = q_BPNQD.shape[1] * q_BPNQD.shape[2], q_BPNQD.shape[-1]
    queries, keys = bias_NQK.shape[1:]
    k_BGKD, v_BGKD = (_gather_keys(maps, heads, part) for part in (0, 1))
    # windows and heads in one dimension: the mask then broadcasts over the batch without being copied
    bias_BPNQK = bias_NQK.to(q_BHWC.dtype).expand(1, windows, -1, -1, -1)
    if allowed is not None:
        bias_BPNQK = bias_BPNQK.where(allowed[:, :, None], float("-inf"))
    q_BGQD = q_BPNQD.reshape(batch, windows * heads, queries, channels)
    only_bias = torch.is_grad_enabled() and bias_NQK.requires_grad and not q_BGQD.requires_grad
    backends = _backends(q_BGQD.device, only_bias)
    with _gathered_again(qkv_BHWC, coarse, layout, (k_BGKD, v_BGKD)), backends:
        out_BGQD = F.scaled_dot_product_attention(
            q_BGQD,
            k_BGKD,
            v_BGKD,
            attn_mask=bias_BPNQK.reshape(-1, windows * heads, queries, keys),
            dropout_p=dropout,
            scale=1.0,
        )
    return _merge_windows(out_BGQD.reshape(q_BPNQD.shape), window)


def _backends(device: torch.device, only_bias: bool) -> AbstractContextManager[None]:
    """Which of torch's implementations may be chosen.

    Under torch.func only the plain one: a fused attention would be chosen for a bias whose gradient it does
    not have. Likewise on CUDA where the bias alone learns: the fused attention keeps no logsumexp for queries
    without a gradient, and its backward reads one (pytorch 188302). cuDNN's has open reports of NaN for
    K % 128 == 64.
    """
    if not torch.compiler.is_compiling() and is_transformed():
        return sdpa_kernel(SDPBackend.MATH)
    if device.type == "cuda":
        if only_bias:
            return sdpa_kernel(SDPBackend.MATH)
        return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return nullcontext()


def _gathered_again(
    qkv_BHWC: Tensor, coarse: Sequence[Tensor], layout: Layout, gathered: tuple[Tensor, Tensor]
) -> Any:
    """Within this context autograd keeps none of the `gathered` keys and values (B, G, K, D).

    They are several times as large as the maps that they come from; backward gathers them again. Where other
    hooks are at work, such as gradient checkpointing's, ours would hide the tensors from them.
    """
    real = type(qkv_BHWC) is Tensor and qkv_BHWC.device.type != "meta"  # with an address in memory
    if not real or in_graph() or not (torch.is_grad_enabled() and qkv_BHWC.requires_grad):
        return nullcontext()
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return nullcontext()
    places = [tensor.untyped_storage().data_ptr() for tensor in gathered]
    sources = qkv_BHWC.detach(), [kv.detach() for kv in coarse]

    def pack(tensor: Tensor) -> Tensor | tuple[Any, ...]:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in places:
            return tensor
        return places.index(storage), tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(packed: Tensor | tuple[Any, ...]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        part, shape, stride, offset = packed
        _, maps = split_levels(*sources, layout)
        return _gather_keys(maps, layout.heads, part).as_strided(shape, stride, offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


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


def _gather_keys(maps: Sequence[KeyMap], heads: int, part: int) -> Tensor:
    """k (part 0) or v (part 1) of every window's regions of all levels: (B, G, K, D)."""
    gathered = []
    for level in maps:
        x_BHWND = torch.unflatten(level.kv_BHWC.chunk(2, -1)[part], -1, (heads, -1))
        view = regions(x_BHWND, level.windows, level.step, level.region)  # (B, P, P, height, width, N, D)
        gathered.append(view.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5))
    return torch.cat(gathered, 4).flatten(1, 3)
