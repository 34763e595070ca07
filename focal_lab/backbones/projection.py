"""q, k and v of a map's tokens, and k and v of the tokens pooled from it, by one linear layer.

Shape suffixes: B batch, H W canvas height and width, h w pooled map, C channels, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from focal_lab.backbones.tracing import in_plain_call, is_plain


def project(x_BHWC: Tensor, pooled: Sequence[Tensor], layer: nn.Linear) -> tuple[Tensor, list[Tensor]]:
    """Nobody asks for q of pooled tokens: they get the last two thirds of the layer only.

    Args:
        x_BHWC: the canvas.
        pooled: (B, h, w, C) for each coarse level.
        layer: C to 3 C channels.

    Returns:
        q, k and v (B, H, W, 3 C) of the canvas, and k and v (B, h, w, 2 C) of each level.
    """
    dim, bias = layer.in_features, layer.bias
    if (
        pooled
        and torch.is_grad_enabled()
        and in_plain_call(x_BHWC)
        and is_plain(layer, nn.Linear, x_BHWC.dtype)
    ):
        qkv_BHWC, *coarse = _Project.apply(layer.weight, bias, x_BHWC, *pooled)
        return qkv_BHWC, coarse
    kv_bias = None if bias is None else bias[dim:]
    return layer(x_BHWC), [F.linear(x_BhwC, layer.weight[dim:], kv_bias) for x_BhwC in pooled]


class _Project(torch.autograd.Function):
    """One gradient of the weights: a slice of them would get its own, padded with zeros to full size."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *inputs)
        return tuple(
            F.linear(x, weight[first:], None if bias is None else bias[first:])
            for x, first in zip(inputs, _firsts(weight, inputs), strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        needs_weight, needs_bias, *needs = ctx.needs_input_grad
        grad_weight: Tensor | None = None
        grad_bias: Tensor | None = None
        grad_inputs: list[Tensor | None] = []
        for x, grad, first, need in zip(inputs, grads, _firsts(weight, inputs), needs, strict=True):
            x_TC, grad_TC = x.flatten(0, -2), grad.flatten(0, -2)
            if needs_weight and grad_weight is None:
                grad_weight = grad_TC.t() @ x_TC
            elif grad_weight is not None:
                grad_weight[first:].addmm_(grad_TC.t(), x_TC)
            if needs_bias and grad_bias is None:
                grad_bias = grad_TC.sum(0)
            elif grad_bias is not None:
                grad_bias[first:] += grad_TC.sum(0)
            grad_inputs.append((grad_TC @ weight[first:]).view(x.shape) if need else None)
        return grad_weight, grad_bias, *grad_inputs


def _firsts(weight: Tensor, inputs: Sequence[Tensor]) -> list[int]:
    """The first output of each input: the canvas gets all, pooled tokens no q."""
    return [0, *[weight.shape[1]] * (len(inputs) - 1)]
