"""Classification of pictures in ImageNet's layout: root/train/CLASS/*.jpg and root/val/CLASS/*.jpg."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from PIL import Image
from timm.data.auto_augment import posterize
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import (
    IMG_EXTENSIONS,
    make_dataset,
)

from focal_lab.data.options import check
from focal_lab.data.picture_files import list_pictures_of
from focal_lab.errors import UserError, one_of

Transform = Callable[[Image.Image], Tensor]

UNKNOWN = -1  # the label of a picture without one

# What timm accepts for training and for evaluation alike; its "random" exists for training only.
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class ImageFolderClassification(LightningDataModule):
    """Pictures in one folder per class, with timm's augmentation. The defaults are the paper's for ImageNet.

    The classes are the folders of root/train in alphabetical order. Testing uses root/test where it exists
    and root/val where it does not, as is usual for ImageNet, whose test labels are secret. Mixup and cutmix
    belong to the task.

    Args:
        root: folder that holds `train`, `val` and perhaps `test`.
        image_size: side of the square that the network sees, px.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that decode and augment.
        auto_augment: timm's policy string (`rand-...`, `augmix-...`, `original`, `v0`, ...); None for none.
        color_jitter: strength; timm applies it only where `auto_augment` is None. 0 for none.
        random_erasing: probability that a rectangle of a training picture is replaced by noise.
        interpolation: how pictures are resized, in training and evaluation.
        crop_pct: evaluation resizes the short side to image_size / crop_pct and takes the centre.
        mean: of the channels on a scale of 0 to 1, subtracted.
        std: of the channels on a scale of 0 to 1, divided by.
        predict_root: a flat folder of pictures to predict; None predicts the test pictures.

    Raises:
        UserError: an option is out of range. Missing folders are found by `setup`, so that a run can be
            planned on a machine that does not have the pictures.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 8,
        auto_augment: str | None = "rand-m9-mstd0.5-inc1",
        color_jitter: float = 0.4,
        random_erasing: float = 0.25,
        interpolation: str = "bicubic",
        crop_pct: float = 0.875,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
        predict_root: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check("image_size", image_size, image_size >= 1, "use 1 or more")
        check("batch_size", batch_size, batch_size >= 1, "use 1 or more")
        check("num_workers", num_workers, num_workers >= 0, "use 0 or more")
        check("color_jitter", color_jitter, color_jitter >= 0, "use 0 or more")
        check("random_erasing", random_erasing, 0 <= random_erasing <= 1, "use 0 to 1")
        check(
            "interpolation", interpolation, interpolation in _INTERPOLATIONS, f"use {one_of(_INTERPOLATIONS)}"
        )
        check("crop_pct", crop_pct, 0 < crop_pct <= 1, "use more than 0, up to 1")
        check("std", std, min(std) > 0, "use positive values")
        self.root = Path(root)
        self.predict_root = Path(predict_root) if predict_root is not None else None
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.mean, self.std = tuple(mean), tuple(std)
        self.eval_transform: Transform = create_transform(
            image_size, crop_pct=crop_pct, interpolation=interpolation, mean=mean, std=std
        )
        try:
            self.train_transform: Transform = create_transform(
                image_size,
                is_training=True,
                auto_augment=auto_augment,
                color_jitter=color_jitter,
                re_prob=random_erasing,
                re_mode="pixel",
                interpolation=interpolation,
                mean=mean,
                std=std,
            )
        except (AssertionError, ValueError, KeyError) as error:
            # timm checks the policy string with assertions.
            raise UserError(
                f"timm does not know {auto_augment!r}: {error} (for example rand-m9-mstd0.5-inc1)",
                key="data.init_args.auto_augment",
            ) from error
        _allow_posterizing_to_zero_bits(self.train_transform)
        self._pictures: dict[str, Pictures] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the class folders in root/train; a picture's label counts along them.

        Raises:
            UserError: root/train is missing or has no folder in it.
        """
        return _class_folders(_existing(self.root, "train"))

    @property
    def num_classes(self) -> int:
        """How many class folders root/train has.

        Raises:
            UserError: root/train is missing or has no folder in it.
        """
        return len(self.class_names)

    @property
    def predict_files(self) -> list[Path]:
        """The pictures that `predict_dataloader` yields, in its order.

        Raises:
            UserError: the folder is missing or has no picture in it.
        """
        if self.predict_root is None:
            return [Path(file) for file, _ in self._labelled(self._test_folder(), training=False).samples]
        return list_pictures_of(self.predict_root, "predict_root")

    def setup(self, stage: str) -> None:
        """List the pictures that a stage needs, so that what is missing is said before anything runs."""
        if stage == "fit":
            self._labelled("train", training=True)
        if stage in ("fit", "validate"):
            self._labelled("val", training=False)
        if stage == "test":
            self._labelled(self._test_folder(), training=False)
        if stage == "predict":
            _ = self.predict_files

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled batches of augmented pictures, float32 (B, 3, S, S), and labels, int64 (B,)."""
        return self._loader(self._labelled("train", training=True), shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """All validation pictures in order, their centres cut out."""
        return self._loader(self._labelled("val", training=False))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """All test pictures in order; the validation pictures where there is no root/test."""
        return self._loader(self._labelled(self._test_folder(), training=False))

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The pictures of `predict_files` in order; those of `predict_root` have the label -1."""
        if self.predict_root is None:
            return self.test_dataloader()
        samples = [(str(file), UNKNOWN) for file in self.predict_files]
        return self._loader(Pictures(samples, self.eval_transform))

    def _test_folder(self) -> str:
        return "test" if (self.root / "test").is_dir() else "val"

    def _labelled(self, name: str, *, training: bool) -> "Pictures":
        """The pictures of one folder of root, listed at the first call."""
        if name not in self._pictures:
            samples = list_pictures(_existing(self.root, name), self.class_names)
            self._pictures[name] = Pictures(
                samples, self.train_transform if training else self.eval_transform
            )
        count = len(self._pictures[name])
        if training and count < self.batch_size:
            raise UserError(
                f"{self.batch_size} is more than the {count} training pictures (lower it)",
                key="data.init_args.batch_size",
            )
        return self._pictures[name]

    def _loader(self, pictures: "Pictures", **options: Any) -> DataLoader[Any]:
        return DataLoader(
            pictures,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


class Pictures(Dataset[tuple[Tensor, int]]):
    """Picture files with a label each, decoded and transformed when asked for."""

    def __init__(self, samples: list[tuple[str, int]], transform: Transform) -> None:
        self.samples = samples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One picture, float32 (3, S, S), and its label.

        Raises:
            UserError: the file cannot be decoded.
        """
        file, label = self.samples[index]
        return self.transform(load_picture(file)), label


def list_pictures(folder: Path, class_names: list[str]) -> list[tuple[str, int]]:
    """Picture files under the class folders, in torchvision's `ImageFolder` order, with their labels.

    Args:
        folder: holds one folder per class; a class may be absent, and then keeps its label all the same.
        class_names: what the labels count along.

    Raises:
        UserError: the folder has no pictures, or a class folder that is not one of `class_names`.
    """
    unknown = sorted(set(_class_folders(folder)) - set(class_names))
    if unknown:
        raise UserError(f"has classes that train lacks: {', '.join(unknown[:5])}", file=folder)
    labels = {name: label for label, name in enumerate(class_names)}
    samples: list[tuple[str, int]] = make_dataset(
        str(folder), labels, extensions=IMG_EXTENSIONS, allow_empty=True
    )
    if not samples:
        raise UserError(f"has no pictures in its class folders ({', '.join(IMG_EXTENSIONS)})", file=folder)
    return samples


def load_picture(path: str | Path) -> Image.Image:
    """Decode a picture as RGB, a grey one too.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except Exception as error:
        # Depending on format and damage Pillow raises OSError, SyntaxError, struct.error, EOFError and more.
        raise UserError(f"cannot be decoded as a picture ({error})", file=path) from error


def _allow_posterizing_to_zero_bits(transform: Any) -> None:
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


def _existing(root: Path, name: str) -> Path:
    """root/name, or a UserError that says which of the two is missing."""
    if not root.is_dir():
        raise UserError("is no folder", file=root, key="data.init_args.root")
    if not (root / name).is_dir():
        raise UserError(
            f"is missing (pictures belong in {root}/{name}/CLASS/)",
            file=root / name,
            key="data.init_args.root",
        )
    return root / name


def _class_folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise UserError(f"has no class folders (pictures belong in {folder}/CLASS/)", file=folder)
    return names
