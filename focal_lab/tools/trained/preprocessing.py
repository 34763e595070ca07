"""Preprocessing of images as in the evaluation of a checkpoint.

Shape suffixes: C channels, H W image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.digits.embedded import EmbeddedData
from focal_lab.data.loading.decode import decode
from focal_lab.errors import UserError

_INTERPOLATION = "bicubic"


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of evaluation.

    Attributes:
        size: height and width that the network gets, px; None for the image's own.
        crop_pct: the short side is resized to the size divided by this, then the centre is cropped.
        interpolation: of the resizing.
        mean: subtracted from each channel, on a scale of 0 to 1.
        std: each channel is divided by it.
        transform: all of it, from an image to a normalized (C, H, W); None for the image's own size.
        upright: whether the image is rotated as EXIF says.
    """

    size: Size | None
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transform: Callable[[Image.Image], Tensor] | None
    upright: bool = True

    def read(self, path: Path) -> Tensor:
        """An image file as a normalized (C, H, W); raises UserError if it cannot be read."""
        try:
            image = decode(path, upright=self.upright)
        except Exception as error:
            raise UserError(f"cannot be decoded as an image ({error})", file=path) from error
        if self.transform is not None:
            return self.transform(image)
        pixels = v2.functional.pil_to_tensor(image).float() / 255
        normalized: Tensor = v2.functional.normalize(pixels, list(self.mean), list(self.std))
        return normalized


def mean_of(data: LightningDataModule | None) -> tuple[float, ...]:
    """What evaluation subtracts from each channel; ImageNet's mean without data."""
    return tuple(IMAGENET_DEFAULT_MEAN if data is None else getattr(data, "mean", (0.0,)))


def std_of(data: LightningDataModule | None) -> tuple[float, ...]:
    """What evaluation divides each channel by; ImageNet's standard deviation without data."""
    return tuple(IMAGENET_DEFAULT_STD if data is None else getattr(data, "std", (1.0,)))


def own_size(data: LightningDataModule | None) -> Preprocessing:
    """For detection and segmentation: images keep their size, which the task may change."""
    return Preprocessing(None, 1.0, _INTERPOLATION, mean_of(data), std_of(data), None)


def preprocessing_of(data: LightningDataModule | None, size: Size, crop_pct: float = 0.875) -> Preprocessing:
    """Preprocessing of a data module's evaluation.

    Args:
        data: None if unknown: then `size`, `crop_pct` and ImageNet's mean and std are used.
        size: height and width that evaluation feeds to the network, px.
        crop_pct: of the network.

    Raises:
        UserError: the data does not define it.
    """
    mean, std = mean_of(data), std_of(data)
    if data is None or isinstance(data, EmbeddedData):
        crop_pct = crop_pct if data is None else 1.0
        transform = create_transform(
            (3, *size), crop_pct=crop_pct, interpolation=_INTERPOLATION, mean=mean, std=std
        )
        return Preprocessing(size, crop_pct, _INTERPOLATION, mean, std, transform)
    of_data: Any = getattr(data, "eval_transform", None)
    if of_data is not None:
        crop_pct = float(data.hparams.get("crop_pct") or 1.0)
        interpolation = str(data.hparams.get("interpolation") or _INTERPOLATION)
        upright = bool(data.hparams.get("upright", True))
        return Preprocessing(size, crop_pct, interpolation, mean, std, of_data, upright)
    if not hasattr(data, "mean"):
        raise UserError(
            f"{type(data).__name__} does not define its normalization: it needs `mean` and `std`, or "
            "`eval_transform`"
        )
    return own_size(data)


def validation_images(data: LightningDataModule, count: int) -> Iterator[tuple[str, Tensor]]:
    """The first images of the validation data, normalized (C, H, W), each with a name."""
    data.setup("validate")
    # loaders may yield bytes, which become floats on the network's device
    batches: Any = (data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader())
    images = chain.from_iterable(images for images, *_ in batches)
    for number, image in enumerate(islice(images, count)):
        yield f"validation {number}", image
