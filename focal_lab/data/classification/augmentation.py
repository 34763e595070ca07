"""timm's transforms from an RGB image to bytes, for training and evaluation."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from PIL import Image
from timm.data.auto_augment import posterize
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomCrop, Resize

from focal_lab.data.option_checks import check, check_least
from focal_lab.errors import UserError, one_of

Transform = Callable[[Image.Image], Tensor]

# What timm accepts for training and for evaluation alike; its "random" exists for training only.
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def check_augmentation(options: Mapping[str, Any]) -> None:
    """Raise UserError for an option of `ClassificationDataModule` that says how images are augmented."""
    check_least(options, {"image_size": 1, "color_jitter": 0, "crop_padding": 0})
    check("hflip", options["hflip"], 0 <= options["hflip"] <= 1, "use 0 to 1")
    (least, most), (narrow, wide) = options["scale"], options["ratio"]
    rule = "use two shares of the image's area, the smaller one first"
    check("scale", (least, most), 0 < least <= most <= 1, rule)
    check("ratio", (narrow, wide), 0 < narrow <= wide, "use two aspect ratios, the smaller one first")
    known = options["interpolation"] in _INTERPOLATIONS
    check("interpolation", options["interpolation"], known, f"use {one_of(_INTERPOLATIONS)}")
    check("crop_pct", options["crop_pct"], 0 < options["crop_pct"] <= 1, "use more than 0, up to 1")


def evaluation_transform(options: Mapping[str, Any]) -> Transform:
    """From an RGB image to its centre, uint8 (3, S, S)."""
    made: Transform = create_transform(
        options["image_size"],
        crop_pct=options["crop_pct"],
        interpolation=options["interpolation"],
        use_prefetcher=True,
    )
    return made


def training_transform(options: Mapping[str, Any], mean: tuple[float, ...]) -> Transform:
    """From an RGB image to a random part of it with random changes, uint8 (3, S, S).

    Args:
        options: of `ClassificationDataModule`.
        mean: the colour that shears and rotations fill with, on a scale of 0 to 1.

    Raises:
        UserError: timm does not know the policy.
    """
    policy = options["auto_augment"]
    try:
        made: Any = create_transform(
            options["image_size"],
            is_training=True,
            auto_augment=policy,
            color_jitter=options["color_jitter"] or None,  # type: ignore[arg-type]
            hflip=options["hflip"],
            scale=tuple(options["scale"]),
            ratio=tuple(options["ratio"]),
            interpolation=options["interpolation"],
            mean=mean,
            use_prefetcher=True,
        )
    except (AssertionError, ValueError, KeyError) as error:  # timm checks the policy with assertions
        raise UserError(
            f"timm does not know {policy!r}: {error} (for example rand-m9-mstd0.5-inc1)",
            key="data.init_args.auto_augment",
        ) from error
    allow_posterizing_to_zero_bits(made)
    if options["crop_padding"]:
        # as in DeiT's and Swin's recipes for images of 32 px
        side = options["image_size"]
        resize = Resize(side, InterpolationMode(options["interpolation"]))
        made.transforms[:1] = [resize, RandomCrop(side, padding=options["crop_padding"])]
    trained: Transform = made
    return trained


def allow_posterizing_to_zero_bits(transform: Any) -> None:
    """Fix timm's augmentation under Pillow 13.

    At the end of its range timm (1.0.31) asks Pillow to keep 0 bits of each channel, about once in 700 images
    with the default policy. That gave a black image until Pillow 13 began to raise.
    """
    for step in transform.transforms:
        for operation in (*getattr(step, "ops", ()), *chain.from_iterable(getattr(step, "policy", ()))):
            if getattr(operation, "aug_fn", None) is posterize:
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    posterized: Image.Image = posterize(image, bits_to_keep, **options)
    return posterized
