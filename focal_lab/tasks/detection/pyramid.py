"""The feature pyramid (Lin et al. 2017, arXiv 1612.03144) on a backbone's maps.

Shape suffixes: B batch, C channels, H W map.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from focal_lab.tasks.features import Features
from focal_lab.tasks.padding import shield


class Pyramid(nn.Module):
    """Backbone and pyramid, in the form that torchvision's detectors need.

    Args:
        features: the backbone.
        channels: of each map.
        extra: "pool", one more level of every other position (Mask R-CNN); "convolutions", two more by
            convolutions from the backbone's last map (RetinaNet's paper) or, "convolutions of p5", from the
            pyramid's.
    """

    def __init__(self, features: Features, channels: int, extra: str) -> None:
        super().__init__()
        self.body = features
        self.out_channels = channels
        more: ExtraFPNBlock = LastLevelMaxPool()
        if extra != "pool":
            from_c5 = extra == "convolutions"
            more = LastLevelP6P7(features.channels[-1] if from_c5 else channels, channels)
            more.use_P5 = not from_c5  # torchvision infers p5 from equal widths
        self.fpn = FeaturePyramidNetwork(features.channels, channels, more)
        shield(self.fpn, features.extent)
        levels = 1 if extra == "pool" else 2
        self.strides = [*features.strides, *(features.strides[-1] << i + 1 for i in range(levels))]

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Maps (B, channels, H, W) by the names "0", "1", ..., the finest first."""
        maps: Sequence[Tensor] = self.body(images_BCHW)
        pyramid: dict[str, Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(maps)))
        return pyramid
