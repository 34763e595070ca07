"""What all detection methods are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from focal_lab.backbones.options import Size
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.features import Features
from focal_lab.tasks.padding import Extent, padded_size

# what torchvision's classes would hand on to the transform that ours stands in for
_ELSEWHERE = {
    "min_size": "use model.min_size",
    "max_size": "use model.max_size",
    "image_mean": "the data module normalises images",
    "image_std": "the data module normalises images",
}


@dataclass(frozen=True)
class Settings:
    """The parts of a detector that do not depend on the method.

    Attributes:
        features: the backbone.
        extent: what of a padded batch is picture.
        num_classes: classes of objects, background not counted.
        min_size: shorter side in px that pictures are resized to; training draws one of several, evaluation
            takes the last; empty to leave pictures as they are.
        max_size: longest side in px after resizing.
        channels: of the pyramid's maps.
        head_width: numbers per region in the box head.
        options: keyword arguments of torchvision's class.
    """

    features: Features
    extent: Extent
    num_classes: int
    min_size: tuple[int, ...] = ()
    max_size: int = 1333
    channels: int = 256
    head_width: int = 1024
    options: Mapping[str, Any] = field(default_factory=dict)

    def construct(self, network: Any, defaults: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """`network(**arguments)` with the user's options, or else our defaults of them.

        Raises:
            UserError: an option that the class does not take.
        """
        # torchvision passes what it does not know on to its transform, which ignores it
        elsewhere = {"kwargs", *_ELSEWHERE, *arguments}
        known = [name for name in signature(network).parameters if name not in elsewhere]
        for name in self.options:
            if name in _ELSEWHERE:
                raise UserError(f"{name} is not set here: {_ELSEWHERE[name]}", key="model.detector_options")
            if name not in known:
                raise UserError(
                    f"{name} is no option of {network.__name__} (use {one_of(known)})",
                    key="model.detector_options",
                )
        try:
            made = network(**arguments, **(dict(defaults or {}) | dict(self.options)))
        except (TypeError, ValueError) as error:
            raise UserError(f"{network.__name__}: {error}", key="model.detector_options") from error
        made.transform = Resize(self)
        return made


class Resize(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's resizing and padding, which tells `Extent` what it padded; pictures come normalised."""

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
        """Height and width of what the network is fed in evaluation for an image of that size alone."""
        training: bool = self.training
        self.eval()  # training draws one of several sizes
        image, _ = self.resize(torch.empty(3, *size, device="meta"))
        self.train(training)
        return padded_size((image.shape[-2], image.shape[-1]), self.size_divisible)

    def forward(self, images: Any, targets: Any = None) -> Any:
        """A batch of pictures (3, H, W), of different sizes, in one frame."""
        batch, targets = super().forward(images, targets)
        self.extent.update(batch.image_sizes, batch.tensors.shape[-2:])
        return batch, targets
