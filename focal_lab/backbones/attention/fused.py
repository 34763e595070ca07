"""The default implementation of focal attention: the same results as `reference`, but fast.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window, K keys per window over all levels, G = P * N.

On the CPU `cpu.attention` works in chunks that stay in cache. Other devices run torch's fused attention
on the whole batch: the keys of all windows then exist during the call, but backward gathers them again.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from focal_lab.backbones.attention.key_maps import AttentionLayout, KeyMap, split_levels
from focal_lab.backbones.attention.reference import attend_reference
from focal_lab.backbones.cpu.attention import attend_chunked
from focal_lab.backbones.cpu.dispatch import in_graph, is_transformed
from focal_lab.backbones.geometry import regions
from focal_lab.backbones.options import Size

# Maps with at most this many windows and bytes of scores per image gain nothing from chunks (digits models)
FEW_WINDOWS = 4
FEW_BYTES = 1 << 18


def attend(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: AttentionLayout,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention of every window's queries over its keys of all levels.

    Args:
        qkv_BHWC: q, k and v (3 C channels) on the canvas (whole windows).
        coarse: k and v (B, grid height, grid width, 2 C) of the pooled tokens of each coarse level.
        bias_NQK: position biases, keys in the order of the levels.
        allowed: boolean (1 or B, P, 1 or Q, K), None when every key is visible.
        layout: positions of the windows, number of heads and scale of the scores.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, H, W, C) on the canvas.
    """
    # a fake tensor claims to be on the CPU, but has no memory to work in
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
    layout: AttentionLayout,
    dropout: float = 0.0,
) -> Tensor:
    """`attend` by torch's attention on the whole batch: for GPUs, tracing and counting."""
    heads, window, batch = layout.heads, layout.grid.window, qkv_BHWC.shape[0]
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    q_BPNQD = split_windows(q_BHWC, window, heads)
    windows, channels = q_BPNQD.shape[1] * q_BPNQD.shape[2], q_BPNQD.shape[-1]
    queries, keys = bias_NQK.shape[1:]
    k_BGKD, v_BGKD = (gather_keys(maps, layout, part) for part in (0, 1))
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
    return merge_windows(out_BGQD.reshape(q_BPNQD.shape), window)


def _backends(device: torch.device, only_bias: bool) -> AbstractContextManager[None]:
    """Which of torch's implementations may be chosen.

    Only the plain one under torch.func, where a fused attention would be chosen for a bias whose gradient it
    lacks, and on CUDA where the bias alone learns: the fused attention saves no logsumexp for queries without
    a gradient, which its backward reads (pytorch 188302). cuDNN's has open reports of NaN for K % 128 == 64.
    """
    if not torch.compiler.is_compiling() and is_transformed():
        return sdpa_kernel(SDPBackend.MATH)
    if device.type == "cuda":
        return sdpa_kernel(
            [SDPBackend.MATH] if only_bias else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )
    return nullcontext()


def _gathered_again(
    qkv_BHWC: Tensor, coarse: Sequence[Tensor], layout: AttentionLayout, gathered: tuple[Tensor, Tensor]
) -> Any:
    """Within this context autograd saves none of the `gathered` keys and values (B, G, K, D).

    They are several times as large as the maps they come from; backward gathers them again. Inactive beside
    other saved-tensor hooks, such as gradient checkpointing's, from which ours would hide the tensors.
    """
    real = type(qkv_BHWC) is Tensor and qkv_BHWC.device.type != "meta"  # with an address in memory
    if not real or in_graph() or not (torch.is_grad_enabled() and qkv_BHWC.requires_grad):
        return nullcontext()
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return nullcontext()
    addresses = [tensor.untyped_storage().data_ptr() for tensor in gathered]
    sources = qkv_BHWC.detach(), [kv.detach() for kv in coarse]

    def pack(tensor: Tensor) -> Tensor | tuple[Any, ...]:
        address = tensor.untyped_storage().data_ptr()
        if address not in addresses:
            return tensor
        return addresses.index(address), tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(packed: Tensor | tuple[Any, ...]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        part, shape, stride, offset = packed
        _, maps = split_levels(*sources, layout)
        return gather_keys(maps, layout, part).as_strided(shape, stride, offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def split_windows(x_BHWC: Tensor, window: Size, heads: int) -> Tensor:
    """View (B, windows down, windows across, N, Q, D) of a canvas; copies only to flatten Q."""
    batch, height, width, channels = x_BHWC.shape
    rows, columns = height // window[0], width // window[1]
    x = x_BHWC.view(batch, rows, window[0], columns, window[1], heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, rows, columns, heads, -1, channels // heads)


def merge_windows(x_BPNQD: Tensor, window: Size) -> Tensor:
    """The inverse of `split_windows`: (B, H, W, C)."""
    batch, rows, columns, heads, _, channels = x_BPNQD.shape
    x = x_BPNQD.reshape(batch, rows, columns, heads, *window, channels).permute(0, 1, 4, 2, 5, 3, 6)
    # Copy even where the strides of a single window would allow a view: torch's attention and an exporter's
    # replacement for it return different strides, and a view that fits one fails with the other.
    x = x.clone(memory_format=torch.contiguous_format)
    return x.view(batch, rows * window[0], columns * window[1], heads * channels)


def gather_keys(maps: Sequence[KeyMap], layout: AttentionLayout, part: int) -> Tensor:
    """k (part 0) or v (part 1) of every window's regions of all levels: (B, G, K, D)."""
    gathered = []
    for level in maps:
        x_BHWND = torch.unflatten(level.kv_BHWC.chunk(2, -1)[part], -1, (layout.heads, -1))
        # (B, windows down, windows across, height, width, N, D)
        view = regions(x_BHWND, layout.grid.windows, level.step, level.region)
        gathered.append(view.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5))
    return torch.cat(gathered, 4).flatten(1, 3)
