"""Anchors and regions of images in a padded batch, see `focal_lab.tasks.padding`.

Shape suffixes: B images, C channels, H W of a map, A anchors per position.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from focal_lab.tasks.padding import Extent

# Far enough for a moved anchor to overlap nothing, near enough for float32 to keep its size to 1/16 px.
_FAR = 1e6
# A logit that means never, also in half precision, and whose cross-entropy is 0 and not NaN.
NEVER = -1e4


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors of the images; those beyond an image are moved far away.

    Strides are the maps' true ones; torchvision divides the frame by the map, which differs where there is a
    remainder.
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
        """(positions * A, 4) corners for each image, all levels concatenated."""
        like = feature_maps[0]
        sizes = [list(x_BCHW.shape[-2:]) for x_BCHW in feature_maps]
        steps = [[torch.tensor(step, device=like.device)] * 2 for step in self.strides]
        # half precision cannot distinguish neighbouring pixels of a large image
        self.set_cell_anchors(torch.promote_types(like.dtype, torch.float32), like.device)
        anchors = torch.cat(self.grid_anchors(sizes, steps))
        outside_BA = self.outside(feature_maps)
        if outside_BA is None:
            return [anchors] * len(image_list.image_sizes)
        return [anchors - _FAR * outside_A[:, None] for outside_A in outside_BA]

    def outside(self, feature_maps: Sequence[Tensor]) -> Tensor | None:
        """(B, positions * A), True for anchors at positions beyond the image; None if there are none."""
        per_level = []
        for x_BCHW, count in zip(feature_maps, self.num_anchors_per_location(), strict=True):
            inside = self.extent.inside(x_BCHW)
            if inside is None:
                return None
            per_level.append(~inside.flatten(1).repeat_interleave(count, 1))
        return torch.cat(per_level, 1)


def are_outside(anchors_A4: Tensor) -> Tensor:
    """Which anchors, from `Anchors`, are at positions beyond the image."""
    return anchors_A4[:, 2] < -_FAR / 2


class RegionAlign(MultiScaleRoIAlign):  # type: ignore[misc]
    """Features of regions; at the edge of an image as if it were the edge of the map.

    Scales are the maps' true ones: torchvision guesses them from the first batch, wrongly if images are
    smaller than the frame.
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
