"""Pictures as the network of a checkpoint was shown them when it was judged.

Shape suffixes: C channels, H W picture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.digits.base import EmbeddedData
from focal_lab.data.loading.decode import decode
from focal_lab.errors import UserError

_INTERPOLATION = "bicubic"


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does to a picture.

    Attributes:
        size: height and width that the network sees, px; None for the picture's own.
        crop_pct: the short side is resized to the size divided by this, and the centre is taken.
        interpolation: how it is resized.
        mean: what is subtracted from each channel, on a scale of 0 to 1.
        std: what each channel is divided by.
        transform: all of it, from a picture to a normalised (C, H, W); None for the picture's own size.
        upright: whether it is turned as EXIF says.
    """

    size: Size | None
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transform: Callable[[Image.Image], Tensor] | None
    upright: bool = True

    def read(self, path: Path) -> Tensor:
        """A picture file as a normalised (C, H, W).

        Raises:
            UserError: it cannot be read.
        """
        try:
            picture = decode(path, upright=self.upright)
        except Exception as error:
            raise UserError(f"cannot be decoded as an image ({error})", file=path) from error
        if self.transform is not None:
            return self.transform(picture)
        pixels = v2.functional.pil_to_tensor(picture).float() / 255
        normal: Tensor = v2.functional.normalize(pixels, list(self.mean), list(self.std))
        return normal


def mean_of(data: LightningDataModule | None) -> tuple[float, ...]:
    """What evaluation subtracts from each channel; ImageNet's where there is no data to ask."""
    return tuple(IMAGENET_DEFAULT_MEAN if data is None else getattr(data, "mean", (0.0,)))


def std_of(data: LightningDataModule | None) -> tuple[float, ...]:
    """What evaluation divides each channel by; ImageNet's where there is no data to ask."""
    return tuple(IMAGENET_DEFAULT_STD if data is None else getattr(data, "std", (1.0,)))


def own_size(data: LightningDataModule | None) -> Preprocessing:
    """As detection and segmentation are shown pictures: of their own size, which the task may change."""
    return Preprocessing(None, 1.0, _INTERPOLATION, mean_of(data), std_of(data), None)


def preprocessing_of(data: LightningDataModule | None, size: Size, crop_pct: float = 0.875) -> Preprocessing:
    """What the evaluation of a data module does to a picture.

    Args:
        data: None where nobody knows: then `size`, `crop_pct` and ImageNet's colours are taken.
        size: of what evaluation feeds to the network, px.
        crop_pct: of the network.

    Raises:
        UserError: the data does not say what it does.
    """
    mean, std = mean_of(data), std_of(data)
    if data is None or isinstance(data, EmbeddedData):
        crop_pct = crop_pct if data is None else 1.0
        made = create_transform(
            (3, *size), crop_pct=crop_pct, interpolation=_INTERPOLATION, mean=mean, std=std
        )
        return Preprocessing(size, crop_pct, _INTERPOLATION, mean, std, made)
    transform: Any = getattr(data, "eval_transform", None)
    if transform is not None:
        crop_pct = float(data.hparams.get("crop_pct") or 1.0)
        interpolation = str(data.hparams.get("interpolation") or _INTERPOLATION)
        upright = bool(data.hparams.get("upright", True))
        return Preprocessing(size, crop_pct, interpolation, mean, std, transform, upright)
    if not hasattr(data, "mean"):
        raise UserError(
            f"{type(data).__name__} does not say how it normalises pictures: it needs `mean` and "
            "`std`, or `eval_transform`"
        )
    return own_size(data)


def validation_pictures(data: LightningDataModule, count: int) -> Iterator[tuple[str, Tensor]]:
    """The first pictures of the validation data, normalised (C, H, W), with a name each.

    Raises:
        UserError: they cannot be read.
    """
    data.setup("validate")
    for number, picture in enumerate(islice(_pictures(data), count)):
        yield f"validation {number}", picture


def _pictures(data: LightningDataModule) -> Iterator[Tensor]:
    for batch in data.val_dataloader():
        # loaders may give bytes, which become numbers on the network's device
        shown: Sequence[Any] = data.on_after_batch_transfer(batch, 0)
        yield from shown[0]
