"""Sub-window pooling (section 3.2, equation 1): one token for s_w x s_w neighbours.

Shape suffixes: B batch, H W map of whole sub-windows, h w pooled map, S tokens of a sub-window (s_w * s_w),
C channels.

Every pooling maps (B, H, W, C) to (B, h, w, C). With a masked border it also takes the mask of tokens inside
the image; those outside are zero, so weighted sums do not need it.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from focal_lab.backbones.cpu.dispatch import is_plain
from focal_lab.backbones.geometry import sub_windows
from focal_lab.backbones.options import FocalOptions, Size


class LinearPool(nn.Module):
    """`fc`: learned weights over the sub-window's tokens, shared by all channels.

    Args:
        size: the sub-window in tokens.
        as_mean: initialise to the mean of the tokens, weights of 1 / s_w^2. The released code sets these
            weights too, but the initialisation of the network overwrites them.
    """

    def __init__(self, size: Size, as_mean: bool) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(math.prod(size), 1)
        self.as_mean = as_mean
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mean if `as_mean`; otherwise the initialisation of all linear layers is kept."""
        if self.as_mean:
            nn.init.constant_(self.linear.weight, 1 / self.linear.in_features)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x_BHWC: Tensor, inside_BHW1: Tensor | None = None) -> Tensor:
        x_BhwSC = sub_windows(x_BHWC, self.size)
        if is_plain(self.linear, nn.Linear):
            return torch.matmul(self.linear.weight, x_BhwSC).squeeze(-2) + self.linear.bias
        pooled_BhwC1: Tensor = self.linear(x_BhwSC.transpose(-1, -2))
        return pooled_BhwC1.squeeze(-1)


class ConvPool(nn.Module):
    """`conv`: learned weights over the sub-window's tokens for each channel."""

    def __init__(self, dim: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(dim, dim, kernel_size=size, groups=dim)

    def forward(self, x_BHWC: Tensor, inside_BHW1: Tensor | None = None) -> Tensor:
        x_BhwSC = sub_windows(x_BHWC, self.size)
        if is_plain(self.conv, nn.Conv2d):
            weight_SC = self.conv.weight.flatten(1).t()
            pooled: Tensor = (x_BhwSC * weight_SC).sum(-2) + cast(Tensor, self.conv.bias)
            return pooled
        each_C11: Tensor = self.conv(x_BhwSC.transpose(-1, -2).flatten(0, 2).unflatten(-1, self.size))
        return each_C11.view(*x_BhwSC.shape[:3], -1)


class MeanPool(nn.Module):
    """`mean`: the average of the tokens inside the map."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, x_BHWC: Tensor, inside_BHW1: Tensor | None = None) -> Tensor:
        x_BhwSC = sub_windows(x_BHWC, self.size)
        if inside_BHW1 is None:
            return x_BhwSC.mean(-2)
        return x_BhwSC.sum(-2) / sub_windows(inside_BHW1, self.size).sum(-2).clamp(min=1)


class MaxPool(MeanPool):
    """`max`: the largest value per channel of the tokens inside the map."""

    def forward(self, x_BHWC: Tensor, inside_BHW1: Tensor | None = None) -> Tensor:
        x_BhwSC = sub_windows(x_BHWC, self.size)
        if inside_BHW1 is None:
            return x_BhwSC.amax(-2)
        inside_BhwS1 = sub_windows(inside_BHW1, self.size)
        pooled = x_BhwSC.masked_fill(~inside_BhwS1, torch.finfo(x_BHWC.dtype).min).amax(-2)
        return pooled.masked_fill(~inside_BhwS1.any(-2), 0.0)  # such cells are masked; keep them finite


def make_pooling(options: FocalOptions, dim: int, size: Size) -> nn.Module:
    """The pooling that the options name."""
    if options.focal_pool == "fc":
        return LinearPool(size, as_mean=options.pool_init == "mean")
    if options.focal_pool == "conv":
        return ConvPool(dim, size)
    return MeanPool(size) if options.focal_pool == "mean" else MaxPool(size)
