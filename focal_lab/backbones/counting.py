"""Parameters, multiply-accumulates and activations of any vision model, as papers count them.

The "FLOPs" of papers are multiply-accumulates of matrix products and convolutions; norms, activation
functions and additions are left out.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.options import Size


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_released_parameters(model: nn.Module) -> int:
    """Parameters as in the released code, which has two biases for each ring key that it gathers twice.

    `count_parameters` of the same network is smaller: by 0.2 % at window 7, 1.2 % at window 14. Four rolled
    copies of the map have 132 ring keys instead of 120 at window 7 and expansion 3, 300 instead of 204 at
    window 14.
    """
    doubled = 0
    for module in model.modules():
        if isinstance(module, FocalAttention) and module.ring_bias is not None:
            stage = module.stage
            heads, queries, ring = module.ring_bias.shape
            inner = [side - beyond for side, beyond in zip(stage.window, stage.expand, strict=True)]
            doubled += heads * queries * (4 * (queries - math.prod(inner)) - ring)
    return count_parameters(model) + doubled


def count_gmacs(model: nn.Module, image_size: Size, in_chans: int = 3) -> float:
    """Billions of multiply-accumulates of a forward pass of one image of (height, width) pixels.

    The model is copied to the meta device, where nothing is computed.
    """
    counter = FlopCounterMode(display=False)
    _run_on_meta(model, image_size, in_chans, counter)
    # the counter reports two operations per multiply-accumulate
    return counter.get_total_flops() / 2e9


def count_activations(model: nn.Module, image_size: Size, in_chans: int = 3) -> int:
    """Number of outputs of convolutions, linear layers and attention's two products for one image.

    The definition of fvcore (and of Radosavovic et al. 2020, "Designing Network Design Spaces"), with
    attention's scores and output counted as if nothing were fused. Norms, activation functions, softmax and
    additions do not count.
    """
    counter = _ProductOutputs()
    _run_on_meta(model, image_size, in_chans, counter)
    return counter.numbers


class _ProductOutputs(TorchDispatchMode):
    """Sums the number of outputs of convolutions and matrix products."""

    _PRODUCTS = frozenset(
        getattr(torch.ops.aten, name) for name in ("convolution", "mm", "addmm", "bmm", "baddbmm")
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in self._PRODUCTS:
            self.numbers += out.numel()
        return out


def _run_on_meta(
    model: nn.Module, image_size: Size, in_chans: int, counter: AbstractContextManager[Any]
) -> None:
    """One forward pass of one image on the meta device within the counter."""
    # without gradients: the counter's module hooks fail on parameters that are passed as inputs
    copied = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    image = torch.zeros(1, in_chans, *image_size, device="meta")
    # the counter does not see into fused attention kernels: use the one made of matrix products
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        copied(image)
