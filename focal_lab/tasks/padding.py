"""Keeps padding from changing any result.

Images of different size share a frame as large as the largest. What is beyond an image would reach it through
convolutions, pooled regions at its edge, anchors outside and norms over the whole map. Here and in
`detection/regions.py` each of these is prevented, so that an image gets the same result alone and in any
batch.

Shape suffixes: B images, C channels, H W of a map.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from focal_lab.backbones.options import Size


class Extent:
    """The size of each image of the current batch within the common frame.

    Each map of the network is the frame divided by a power of two, rounded up; likewise an image's part of
    it.
    """

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.frame = (0, 0)
        self._inside: dict[tuple[int, int, torch.device], Tensor] = {}

    def update(self, sizes: Sequence[tuple[int, int]], frame: Sequence[int]) -> None:
        """A new batch: height and width of each image and of the frame, in pixels."""
        self.sizes = [(height, width) for height, width in sizes]
        self.frame = frame[0], frame[1]
        self._inside = {}

    @property
    def padded(self) -> bool:
        """Whether any image is smaller than the frame."""
        return any(size != self.frame for size in self.sizes)

    def valid(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each image on a map of that size."""
        step = 1
        while (_divided(self.frame[0], step), _divided(self.frame[1], step)) != (height, width):
            step *= 2
            assert step < 2 * max(self.frame), f"{height} x {width} is not a map of the frame {self.frame}"
        return [(_divided(rows, step), _divided(columns, step)) for rows, columns in self.sizes]

    def inside(self, x_BCHW: Tensor) -> Tensor | None:
        """(B, 1, H, W), True where a map shows the image; None if it does so everywhere."""
        if not self.padded:
            return None
        height, width = x_BCHW.shape[-2:]
        key = (height, width, x_BCHW.device)
        if key not in self._inside:  # dozens of convolutions ask for the same few
            valid_B2 = torch.tensor(self.valid(height, width), device=x_BCHW.device)
            rows_BH = torch.arange(height, device=x_BCHW.device) < valid_B2[:, :1]
            columns_BW = torch.arange(width, device=x_BCHW.device) < valid_B2[:, 1:]
            self._inside[key] = (rows_BH[:, :, None] & columns_BW[:, None])[:, None]
        return self._inside[key]

    def clear(self, x_BCHW: Tensor) -> Tensor:
        """Zeros beyond the images, as a convolution pads the edges of a single one."""
        inside = self.inside(x_BCHW)
        return x_BCHW if inside is None else x_BCHW.where(inside, 0.0)

    def extend(self, x_BCHW: Tensor) -> Tensor:
        """Each image's last row and column repeated beyond it, as a region at a map's edge is sampled."""
        if not self.padded:
            return x_BCHW
        height, width = x_BCHW.shape[-2:]
        valid_B2 = torch.tensor(self.valid(height, width), device=x_BCHW.device) - 1
        rows_BH = torch.arange(height, device=x_BCHW.device).minimum(valid_B2[:, :1])
        columns_BW = torch.arange(width, device=x_BCHW.device).minimum(valid_B2[:, 1:])
        images_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return x_BHWC[images_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None]].permute(0, 3, 1, 2)


def padded_size(size: Size, divisor: int) -> Size:
    """Height and width of an image's frame: the next multiples of `divisor`."""
    return _divided(size[0], divisor) * divisor, _divided(size[1], divisor) * divisor


def shield(module: nn.Module, extent: Extent) -> None:
    """Let every convolution wider than 1 x 1 in a module see zeros beyond the images."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1):
            part.register_forward_pre_hook(partial(_clear, extent))  # a closure could not be copied


def _clear(extent: Extent, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (extent.clear(arguments[0]), *arguments[1:])


class ShieldedGroupNorm(nn.GroupNorm):
    """Group norm over each image's part of the map."""

    def __init__(self, extent: Extent, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        self.extent = extent

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        inside = self.extent.inside(x_BCHW)
        if inside is None:
            return super().forward(x_BCHW)
        x_BGCHW = torch.unflatten(x_BCHW, 1, (self.num_groups, -1))
        inside_B11HW = inside[:, :, None]
        count = inside_B11HW.sum((2, 3, 4), keepdim=True) * x_BGCHW.shape[2]
        mean = x_BGCHW.where(inside_B11HW, 0.0).sum((2, 3, 4), keepdim=True) / count
        centred = x_BGCHW - mean
        variance = centred.where(inside_B11HW, 0.0).square().sum((2, 3, 4), keepdim=True) / count
        normal_BCHW = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        return normal_BCHW * self.weight[:, None, None] + self.bias[:, None, None]


def _divided(length: int, step: int) -> int:
    return -(-length // step)
