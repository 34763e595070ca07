"""What is done to a picture before a network sees it: timm's transforms, up to bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from PIL import Image
from timm.data.auto_augment import posterize
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomCrop, Resize

from focal_lab.data.option_checks import check
from focal_lab.errors import UserError, one_of

Transform = Callable[[Image.Image], Tensor]

# What timm accepts for training and for evaluation alike; its "random" exists for training only.
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Augmentation:
    """Options of `ClassificationDataModule` that say how pictures become squares of bytes.

    Raises:
        UserError: one is out of range.
    """

    image_size: int
    auto_augment: str | None
    color_jitter: float
    hflip: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    crop_padding: int
    interpolation: str
    crop_pct: float
    mean: tuple[float, ...]

    def __post_init__(self) -> None:
        check("image_size", self.image_size, self.image_size >= 1, "use 1 or more")
        check("color_jitter", self.color_jitter, self.color_jitter >= 0, "use 0 or more")
        check("hflip", self.hflip, 0 <= self.hflip <= 1, "use 0 to 1")
        rising = 0 < self.scale[0] <= self.scale[1] <= 1
        check("scale", self.scale, rising, "use two shares of the picture's area, the smaller one first")
        rising = 0 < self.ratio[0] <= self.ratio[1]
        check("ratio", self.ratio, rising, "use two widths over heights, the smaller one first")
        check("crop_padding", self.crop_padding, self.crop_padding >= 0, "use 0 or more")
        known = self.interpolation in _INTERPOLATIONS
        check("interpolation", self.interpolation, known, f"use {one_of(_INTERPOLATIONS)}")
        check("crop_pct", self.crop_pct, 0 < self.crop_pct <= 1, "use more than 0, up to 1")

    def for_evaluation(self) -> Transform:
        """The centre of an RGB picture, uint8 (3, S, S)."""
        made: Transform = create_transform(
            self.image_size, crop_pct=self.crop_pct, interpolation=self.interpolation, use_prefetcher=True
        )
        return made

    def for_training(self) -> Transform:
        """A random part of an RGB picture with random changes, uint8 (3, S, S).

        Raises:
            UserError: timm does not know the policy.
        """
        try:
            made: Any = create_transform(
                self.image_size,
                is_training=True,
                auto_augment=self.auto_augment,
                color_jitter=self.color_jitter or None,  # type: ignore[arg-type]
                hflip=self.hflip,
                scale=self.scale,
                ratio=self.ratio,
                interpolation=self.interpolation,
                # shears and rotations show this colour at the edges
                mean=self.mean,
                use_prefetcher=True,
            )
        except (AssertionError, ValueError, KeyError) as error:
            # timm checks the policy string with assertions.
            raise UserError(
                f"timm does not know {self.auto_augment!r}: {error} (for example rand-m9-mstd0.5-inc1)",
                key="data.init_args.auto_augment",
            ) from error
        allow_posterizing_to_zero_bits(made)
        if self.crop_padding:
            # as the released recipes of DeiT and Swin do with pictures of 32 px
            resize = Resize(self.image_size, InterpolationMode(self.interpolation))
            made.transforms[:1] = [resize, RandomCrop(self.image_size, padding=self.crop_padding)]
        trained: Transform = made
        return trained


def allow_posterizing_to_zero_bits(transform: Any) -> None:
    """Mend timm's augmentation under Pillow 13.

    At the ends of its range timm (1.0.31) asks Pillow to keep 0 bits of each channel, about once in 700
    pictures with the default policy. That gave a black picture until Pillow 13 began to refuse it.
    """
    for step in transform.transforms:
        for operation in (*getattr(step, "ops", ()), *chain.from_iterable(getattr(step, "policy", ()))):
            if getattr(operation, "aug_fn", None) is posterize:
                operation.aug_fn = _posterize


def _posterize(picture: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    if bits_to_keep < 1:
        return Image.new(picture.mode, picture.size)
    posterized: Image.Image = posterize(picture, bits_to_keep, **options)
    return posterized
