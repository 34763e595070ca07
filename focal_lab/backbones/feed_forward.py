"""A block's MLP with the norm before it, on the processor in chunks of tokens that stay in cache.

Shape suffixes: T tokens (of all pictures), C channels, E hidden channels of the MLP, S tokens of one chunk.

The plain modules write and read maps of four times the channels several times over: the norm's output, the
hidden channels before and after the activation, and the gradients of each. Here only the hidden channels
before the activation are kept for backward; all else is computed chunk by chunk, and computed again.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from focal_lab.backbones.scratch import scratch_of
from focal_lab.backbones.tracing import in_plain_call, is_plain

# A chunk has at least as many tokens, so that its matrix products are efficient, and more while its hidden
# channels take no more than as many bytes. Measured on 2 cores with 1 MiB of L2 each: flat around both.
CHUNK_TOKENS = 1024
CHUNK_BYTES = 1 << 20


def feed_forward(x_BHWC: Tensor, norm: nn.Module, mlp: nn.Module) -> Tensor:
    """`mlp(norm(x))`, in chunks where the modules are a plain LayerNorm and MLP with GELU on the processor.

    Modules of another kind, with hooks, with dropout at work, under autocast or on another device are called
    as they are.

    Args:
        x_BHWC: tokens (..., C).
        norm: LayerNorm over C.
        mlp: timm's Mlp.

    Returns:
        Tokens of the same shape.
    """
    out: Tensor
    if not _is_plain(x_BHWC, norm, mlp):
        out = mlp(norm(x_BHWC))
        return out
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(mlp, Mlp)
    x_TC = x_BHWC.reshape(-1, x_BHWC.shape[-1])
    tensors = [cast(Tensor, p) for p in _parameters(norm, mlp)]
    if torch.is_grad_enabled() and (x_TC.requires_grad or any(t.requires_grad for t in tensors)):
        out = _FeedForward.apply(x_TC, norm.eps, *tensors)
    else:
        out = _forward(x_TC, norm.eps, tensors, None)
    return out.view(x_BHWC.shape)


def _is_plain(x: Tensor, norm: nn.Module, mlp: nn.Module) -> bool:
    if not in_plain_call(x) or not is_plain(norm, nn.LayerNorm, x.dtype) or not is_plain(mlp, Mlp, x.dtype):
        return False
    assert isinstance(mlp, Mlp)
    parts: list[tuple[nn.Module, type[nn.Module]]]
    parts = [(mlp.fc1, nn.Linear), (mlp.act, nn.GELU), (mlp.drop1, nn.Dropout)]
    parts += [(mlp.norm, nn.Identity), (mlp.fc2, nn.Linear), (mlp.drop2, nn.Dropout)]
    return (
        all(is_plain(part, kind, x.dtype) for part, kind in parts)
        and all(parameter is not None for parameter in _parameters(cast(nn.LayerNorm, norm), mlp))
        and getattr(mlp.act, "approximate", None) == "none"
        and not (mlp.training and (mlp.drop1.p or mlp.drop2.p))
    )


def _parameters(norm: nn.LayerNorm, mlp: Mlp) -> list[Tensor | None]:
    first, second = mlp.fc1, mlp.fc2
    return [norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias]


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, eps: float, *tensors: Tensor) -> Tensor:
        hidden_TE = x_TC.new_empty(len(x_TC), len(tensors[2]))
        ctx.save_for_backward(x_TC, hidden_TE, *tensors)
        ctx.eps = eps
        return _forward(x_TC, eps, tensors, hidden_TE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TC: Tensor) -> tuple[Tensor | None, ...]:
        x_TC, hidden_TE, gain, shift, first, first_bias, second, second_bias = ctx.saved_tensors
        needed = ctx.needs_input_grad
        grad_TC = grad_TC.contiguous()
        grad_x = torch.empty_like(x_TC) if needed[0] else None
        grads = [torch.empty_like(t) for t in (gain, shift, first, first_bias, second, second_bias)]
        grad_gain, grad_shift, grad_first, grad_first_bias, grad_second, grad_second_bias = grads
        scratch = scratch_of(x_TC.dtype)
        channels = x_TC.shape[1:]
        below = any(needed[:1] + needed[2:6])
        for tokens in _slices(len(x_TC), len(first) * x_TC.element_size()):
            beta = 1 if tokens.start else 0  # the first chunk's part overwrites what is in memory
            x_SC, hidden_SE, grad_SC = x_TC[tokens], hidden_TE[tokens], grad_TC[tokens]
            active_SE = scratch.take("mlp active", hidden_SE.shape)
            if needed[6]:
                torch.ops.aten.gelu.out(hidden_SE, out=active_SE)
                grad_second.addmm_(grad_SC.t(), active_SE, beta=beta)
            if needed[7]:
                _add(grad_second_bias, grad_SC.sum(0), beta)
            if not below:
                continue
            grad_active_SE = scratch.take("mlp grad", hidden_SE.shape)
            torch.mm(grad_SC, second, out=grad_active_SE)
            grad_hidden_SE = active_SE
            torch.ops.aten.gelu_backward.grad_input(grad_active_SE, hidden_SE, grad_input=grad_hidden_SE)
            if needed[5]:
                _add(grad_first_bias, grad_hidden_SE.sum(0), beta)
            normed_SC, mean_S1, rstd_S1 = torch.native_layer_norm(x_SC, channels, gain, shift, ctx.eps)
            if needed[4]:
                grad_first.addmm_(grad_hidden_SE.t(), normed_SC, beta=beta)
            grad_normed_SC = torch.mm(grad_hidden_SE, first, out=normed_SC)
            part = torch.ops.aten.native_layer_norm_backward(
                grad_normed_SC,
                x_SC,
                channels,
                mean_S1,
                rstd_S1,
                gain,
                shift,
                [needed[0], needed[2], needed[3]],
            )
            if grad_x is not None:
                grad_x[tokens] = part[0]
            if needed[2]:
                _add(grad_gain, part[1], beta)
            if needed[3]:
                _add(grad_shift, part[2], beta)
        kept = [grad if need else None for grad, need in zip(grads, needed[2:], strict=True)]
        return grad_x, None, *kept


def _forward(x_TC: Tensor, eps: float, tensors: Sequence[Tensor], hidden_TE: Tensor | None) -> Tensor:
    """The output; the hidden channels before the activation are written to `hidden_TE`, if they are kept."""
    gain, shift, first, first_bias, second, second_bias = tensors
    out_TC = torch.empty_like(x_TC)
    scratch = scratch_of(x_TC.dtype)
    for tokens in _slices(len(x_TC), len(first) * x_TC.element_size()):
        x_SC = x_TC[tokens]
        shape = (len(x_SC), len(first))
        hidden_SE = scratch.take("mlp hidden", shape) if hidden_TE is None else hidden_TE[tokens]
        normed_SC = torch.native_layer_norm(x_SC, x_TC.shape[1:], gain, shift, eps)[0]
        torch.addmm(first_bias, normed_SC, first.t(), out=hidden_SE)
        active_SE = hidden_SE if hidden_TE is None else scratch.take("mlp active", shape)
        torch.ops.aten.gelu.out(hidden_SE, out=active_SE)
        torch.addmm(second_bias, active_SE, second.t(), out=out_TC[tokens])
    return out_TC


def _add(total: Tensor, part: Tensor, beta: int) -> None:
    total.copy_(part) if beta == 0 else total.add_(part)


def _slices(tokens: int, token_bytes: int) -> Iterator[slice]:
    """Chunks of equal size."""
    count = max(1, round(tokens / max(CHUNK_TOKENS, CHUNK_BYTES // token_bytes)))
    step = math.ceil(tokens / count)
    for first in range(0, tokens, step):
        yield slice(first, min(first + step, tokens))
