"""What of a padded batch is picture: padding must not change any result.

Pictures of different size share a frame as large as the largest. What lies beyond a picture would reach it by
convolutions, by pooled regions at its edge, by anchors that lie outside and by norms over the whole map. Here
is what keeps each of them from it, so that a picture gets the same answer alone and in any batch.

Shape suffixes: B pictures, C channels, H W of a map, A anchors per position.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

# Far enough for a moved anchor to overlap nothing, near enough for float32 to keep its size to 1/16 px.
_FAR = 1e6
# A logit that means never, in half precision, too, and whose cross-entropy is a zero instead of a NaN.
NEVER = -1e4


class Extent:
    """The size of each picture of the current batch within the common frame.

    Each map of the network is the frame divided by a power of two, rounded up, and so is what a picture
    fills of it.
    """

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.frame = (0, 0)
        self._inside: dict[tuple[int, int, torch.device], Tensor] = {}

    def update(self, sizes: Sequence[tuple[int, int]], frame: Sequence[int]) -> None:
        """A new batch: height and width of each picture and of the frame, in pixels."""
        self.sizes = [(height, width) for height, width in sizes]
        self.frame = frame[0], frame[1]
        self._inside = {}

    @property
    def padded(self) -> bool:
        """Whether any picture leaves a part of the frame empty."""
        return any(size != self.frame for size in self.sizes)

    def valid(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns that each picture fills of a map of that size."""
        step = 1
        while (_divided(self.frame[0], step), _divided(self.frame[1], step)) != (height, width):
            step *= 2
            assert step <= max(self.frame), f"a map of {height} x {width} is no part of {self.frame}"
        return [(_divided(rows, step), _divided(columns, step)) for rows, columns in self.sizes]

    def inside(self, x_BCHW: Tensor) -> Tensor | None:
        """(B, 1, H, W), True where a map shows the picture; None if it does so everywhere."""
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
        """Zeros beyond the pictures, as a convolution pads the edges of a single one."""
        inside = self.inside(x_BCHW)
        return x_BCHW if inside is None else x_BCHW.where(inside, 0.0)

    def extend(self, x_BCHW: Tensor) -> Tensor:
        """The pictures' last row and column beyond them, which is how a region at the edge is sampled."""
        if not self.padded:
            return x_BCHW
        height, width = x_BCHW.shape[-2:]
        valid_B2 = torch.tensor(self.valid(height, width), device=x_BCHW.device) - 1
        rows_BH = torch.arange(height, device=x_BCHW.device).minimum(valid_B2[:, :1])
        columns_BW = torch.arange(width, device=x_BCHW.device).minimum(valid_B2[:, 1:])
        pictures_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return x_BHWC[pictures_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None]].permute(0, 3, 1, 2)


def shield(module: nn.Module, extent: Extent) -> None:
    """Let every convolution in a module that sees neighbours see zeros beyond the pictures."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1):
            part.register_forward_pre_hook(partial(_clear, extent))  # a closure could not be copied


def _clear(extent: Extent, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (extent.clear(arguments[0]), *arguments[1:])


class ShieldedGroupNorm(nn.GroupNorm):
    """Group norm over what a picture fills of the map."""

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


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors of the pictures; those beyond them lie far away from everything.

    Strides are the maps' true ones; torchvision divides the frame by the map, which is another number where
    that leaves a remainder.
    """

    def __init__(
        self,
        extent: Extent,
        strides: Sequence[int],
        sizes: Sequence[Sequence[int]],
        aspect_ratios: Sequence[float],
    ) -> None:
        super().__init__(tuple(tuple(of_level) for of_level in sizes), (tuple(aspect_ratios),) * len(sizes))
        self.extent, self.strides = extent, tuple(strides)

    def forward(self, image_list: Any, feature_maps: list[Tensor]) -> list[Tensor]:
        """(positions * A, 4) corners for each picture, all levels in a row."""
        like = feature_maps[0]
        sizes = [list(x_BCHW.shape[-2:]) for x_BCHW in feature_maps]
        steps = [[torch.tensor(step, device=like.device)] * 2 for step in self.strides]
        # half precision cannot tell neighbouring pixels of a large picture apart
        self.set_cell_anchors(torch.promote_types(like.dtype, torch.float32), like.device)
        anchors = torch.cat(self.grid_anchors(sizes, steps))
        outside_BA = self.outside(feature_maps)
        if outside_BA is None:
            return [anchors] * len(image_list.image_sizes)
        return [anchors - _FAR * outside_A[:, None] for outside_A in outside_BA]

    def outside(self, feature_maps: Sequence[Tensor]) -> Tensor | None:
        """(B, positions * A), True for anchors whose position lies beyond the picture; None for none."""
        per_level = []
        counts = self.num_anchors_per_location()
        for x_BCHW, count in zip(feature_maps, counts, strict=True):
            inside = self.extent.inside(x_BCHW)
            if inside is None:
                return None
            per_level.append(~inside.flatten(1).repeat_interleave(count, 1))
        return torch.cat(per_level, 1)


def are_outside(anchors_A4: Tensor) -> Tensor:
    """Which anchors, from `Anchors`, belong to positions beyond the picture."""
    return anchors_A4[:, 2] < -_FAR / 2


class RegionAlign(MultiScaleRoIAlign):  # type: ignore[misc]
    """Features of regions; at the edge of a picture as if it were the edge of the map.

    Scales are the maps' true ones: torchvision guesses them from the first batch and is mistaken where
    pictures are smaller than the frame.
    """

    def __init__(self, extent: Extent, strides: Sequence[int], output_size: int) -> None:
        super().__init__([str(number) for number in range(len(strides))], output_size, sampling_ratio=2)
        self.extent = extent
        self.scales = [1 / stride for stride in strides]
        levels = [stride.bit_length() - 1 for stride in strides]
        self.map_levels = LevelMapper(levels[0], levels[-1], self.canonical_scale, self.canonical_level)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: Any) -> Tensor:
        """(regions, C, output size, output size)."""
        extended = {name: self.extent.extend(x[name]) for name in self.featmap_names}
        regions: Tensor = super().forward(extended, boxes, image_shapes)
        return regions


def in_full(x: Tensor) -> Tensor:
    """The same numbers in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _divided(length: int, step: int) -> int:
    return -(-length // step)
