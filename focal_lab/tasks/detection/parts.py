"""The parts of a detector that do not depend on the method: settings, resizing, and feature pyramid.

Shape suffixes: B batch, C channels, H W map.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from focal_lab.backbones.options import Size
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.features import Features
from focal_lab.tasks.padding import Extent, padded_size, shield

_KEY = "model.detector_options"
# what torchvision's classes would pass on to the transform that ours replaces
_ELSEWHERE = {
    "min_size": "use model.min_size",
    "max_size": "use model.max_size",
    "image_mean": "the data module normalises images",
    "image_std": "the data module normalises images",
}


@dataclass(frozen=True)
class Settings:
    """The parts of a detector that do not depend on the method; see `Detection` for the options.

    Attributes:
        features: the backbone.
        channels: of the pyramid's maps.
        options: keyword arguments of torchvision's class.
    """

    features: Features
    num_classes: int
    min_size: tuple[int, ...] = ()
    max_size: int = 1333
    channels: int = 256
    head_width: int = 1024
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extent(self) -> Extent:
        """The images' part of a padded batch."""
        return self.features.extent

    def construct(self, network: Any, defaults: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """`network(**arguments)` with the user's options, or else our defaults of them.

        Raises:
            UserError: an option that the class does not accept.
        """
        # torchvision passes what it does not know on to its transform, which ignores it
        known = [
            name for name in signature(network).parameters if name not in {"kwargs", *_ELSEWHERE, *arguments}
        ]
        for name in self.options:
            if name in _ELSEWHERE:
                raise UserError(f"{name} is not set here: {_ELSEWHERE[name]}", key=_KEY)
            if name not in known:
                raise UserError(
                    f"{name} is not an option of {network.__name__} (use {one_of(known)})", key=_KEY
                )
        try:
            detector = network(**arguments, **(dict(defaults or {}) | dict(self.options)))
        except (TypeError, ValueError) as error:
            raise UserError(f"{network.__name__}: {error}", key=_KEY) from error
        detector.transform = Resize(self)
        return detector


class Resize(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's resizing and padding of images that are already normalised; updates the `Extent`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            list(settings.min_size) or [1],
            settings.max_size,
            [0.0] * 3,
            [1.0] * 3,
            size_divisible=settings.features.divisor,
        )
        self.resizes = bool(settings.min_size)
        self.extent = settings.extent

    def normalize(self, image: Any) -> Any:
        """The data module has done it."""
        return image

    def resize(self, image: Any, target: Any = None) -> Any:
        """As torchvision does, or not at all."""
        return super().resize(image, target) if self.resizes else (image, target)

    def frame(self, size: Size) -> Size:
        """Height and width of the network's input in evaluation for one image of that size."""
        training: bool = self.training
        self.eval()  # training draws one of several sizes
        image, _ = self.resize(torch.empty(3, *size, device="meta"))
        self.train(training)
        return padded_size((image.shape[-2], image.shape[-1]), self.size_divisible)

    def forward(self, images: Any, targets: Any = None) -> Any:
        """A batch of images (3, H, W), of different sizes, in one frame."""
        batch, targets = super().forward(images, targets)
        self.extent.update(batch.image_sizes, batch.tensors.shape[-2:])
        return batch, targets


class Pyramid(nn.Module):
    """Backbone and feature pyramid (Lin et al. 2017, arXiv 1612.03144), as torchvision's detectors need them.

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
