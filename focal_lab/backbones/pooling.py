"""Sub-window pooling (section 3.2, equation 1): one token for s_w x s_w neighbours.

Shape suffixes: B batch, H W pooled map, S tokens of a sub-window (s_w * s_w), C channels. Every pooling
takes the sub-windows and, with a masked border, which of their tokens lie inside the map; the others are
zero, which the weighted sums need not be told.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from focal_lab.backbones.options import Size


class LinearPool(nn.Module):
    """`fc`: learned weights over the sub-window's tokens, shared by all channels.

    Args:
        size: the sub-window in tokens.
        as_mean: begin as the mean of the tokens, weights of 1 / s_w^2, and keep that when the network is
            initialised. The released code sets these weights too, but its initialisation overwrites them.
    """

    def __init__(self, size: Size, as_mean: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(size), 1)
        self.as_mean = as_mean
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mean, if asked; otherwise what was drawn for all linear layers stays."""
        if self.as_mean:
            nn.init.constant_(self.linear.weight, 1 / self.linear.in_features)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x_BHWSC: Tensor, inside_BHWS1: Tensor | None = None) -> Tensor:
        """(B, H, W, S, C) to (B, H, W, C)."""
        pooled: Tensor = torch.matmul(self.linear.weight, x_BHWSC).squeeze(-2) + self.linear.bias
        return pooled


class ConvPool(nn.Module):
    """`conv`: learned weights over the sub-window's tokens for each channel."""

    def __init__(self, dim: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(dim, dim, kernel_size=size, groups=dim)

    def forward(self, x_BHWSC: Tensor, inside_BHWS1: Tensor | None = None) -> Tensor:
        """(B, H, W, S, C) to (B, H, W, C)."""
        weight_SC = self.conv.weight.flatten(1).t()
        pooled: Tensor = (x_BHWSC * weight_SC).sum(-2) + cast(Tensor, self.conv.bias)
        return pooled


class MeanPool(nn.Module):
    """`mean`: the average of the tokens inside the map."""

    def forward(self, x_BHWSC: Tensor, inside_BHWS1: Tensor | None = None) -> Tensor:
        """(B, H, W, S, C) to (B, H, W, C)."""
        if inside_BHWS1 is None:
            return x_BHWSC.mean(-2)
        return x_BHWSC.sum(-2) / inside_BHWS1.sum(-2).clamp(min=1)


class MaxPool(nn.Module):
    """`max`: the largest value per channel of the tokens inside the map."""

    def forward(self, x_BHWSC: Tensor, inside_BHWS1: Tensor | None = None) -> Tensor:
        """(B, H, W, S, C) to (B, H, W, C)."""
        if inside_BHWS1 is None:
            return x_BHWSC.amax(-2)
        lowest = torch.finfo(x_BHWSC.dtype).min
        pooled = x_BHWSC.masked_fill(~inside_BHWS1, lowest).amax(-2)
        return pooled.masked_fill(~inside_BHWS1.any(-2), 0.0)  # such cells are masked; keep them finite


def make_pooling(kind: str, dim: int, size: Size, init: str = "released") -> nn.Module:
    """The pooling of that name: fc (which `init` begins as released or mean), conv, mean or max."""
    if kind == "fc":
        return LinearPool(size, as_mean=init == "mean")
    if kind == "conv":
        return ConvPool(dim, size)
    return MeanPool() if kind == "mean" else MaxPool()
