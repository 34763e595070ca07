"""Base class of the classification data sets: options, loaders and normalisation on the device.

Shape suffixes: B batch, C channels, H W size in px.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader

from focal_lab.data.classification.augmentation import (
    check_augmentation,
    evaluation_transform,
    training_transform,
)
from focal_lab.data.classification.class_names import some
from focal_lab.data.classification.dataset import ClassifiedImages
from focal_lab.data.classification.random_erasing import erase
from focal_lab.data.classification.samplers import EpochSampler, EvaluationSampler
from focal_lab.data.loading.collate import as_tensors
from focal_lab.data.loading.decode import to_rgb
from focal_lab.data.loading.loader import make_loader
from focal_lab.data.option_checks import check, check_least, check_seeds
from focal_lab.data.overlap import all_among
from focal_lab.data.sources.image_source import ImageSource, hold_out
from focal_lab.data.test_set import below_common_folder
from focal_lab.errors import UserError, one_of

Split = Literal["train", "val", "test"]


class ClassificationDataModule(LightningDataModule, ABC):
    """Images with one class each, with timm's augmentation. The defaults are the paper's for ImageNet.

    Loaders give bytes, uint8 (B, C, S, S), labels, int64 (B,), and in training with random erasing the
    rectangles; `on_after_batch_transfer` normalises and erases on the batch's device. Mixup and cutmix belong
    to the task.

    The order of an epoch and the augmentation of each image follow from the seed and the epoch alone: any
    number of processes gives the same, and so does a resumed run.

    Args:
        image_size: side of the square that the network sees, px.
        batch_size: images per batch and process. The last incomplete training batch is dropped.
        num_workers: worker processes that decode and augment; None chooses by the machine.
        auto_augment: timm's policy string (`rand-...`, `augmix-...`, `original`, `v0`, ...); None for none.
        color_jitter: strength; timm applies it only if `auto_augment` is None. 0 for none.
        random_erasing: probability that a rectangle of a training image is replaced by noise.
        hflip: probability that a training image is mirrored.
        scale: least and greatest share of an image's area that training crops.
        ratio: least and greatest aspect ratio (width over height) of a training crop.
        crop_padding: black px around the image from which training crops a square of full size, instead of a
            part by `scale` and `ratio`; for small images. 0 for none.
        repeated_augmentation: how often an image of an epoch is shown, with different augmentations; the
            length of an epoch does not change.
        interpolation: how images are resized, in training and evaluation.
        crop_pct: evaluation resizes the short side to image_size / crop_pct and takes the centre.
        mean: of the channels on a scale of 0 to 1, subtracted; a single value is for all.
        std: of the channels on a scale of 0 to 1, divided by; a single value is for all.
        val_split: share of each class's training images that is held out if there are no validation images,
            the same ones in every run.
        max_unreadable: how many damaged images a split may have before the run ends. Training replaces them,
            evaluation leaves them out; each is reported once.
        upright: whether to follow EXIF orientations. Released evaluation code does not.
        seed: of the order and the augmentation; None for the seed of the run (`seed_everything`).
        order_seed: of order and augmentation, instead of `seed`, and of everything else that is random in
            training: mixup, dropout, drop path. None for `seed` in the former and the seed of the run in the
            latter.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`, so that a run can be planned on
            a machine that does not have them.
    """

    channels = 3

    def __init__(
        self,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int | None = None,
        auto_augment: str | None = "rand-m9-mstd0.5-inc1",
        color_jitter: float = 0.4,
        random_erasing: float = 0.25,
        hflip: float = 0.5,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        crop_padding: int = 0,
        repeated_augmentation: int = 1,
        interpolation: str = "bicubic",
        crop_pct: float = 0.875,
        mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
        val_split: float = 0.1,
        max_unreadable: int = 10,
        upright: bool = True,
        seed: int | None = None,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        least = {
            "batch_size": 1,
            "num_workers": 0,
            "repeated_augmentation": 1,
            "max_unreadable": 0,
        }
        check_least(self.hparams, least)
        check_seeds(self.hparams, "seed", "order_seed")
        check("random_erasing", random_erasing, 0 <= random_erasing <= 1, "use 0 to 1")
        check("val_split", val_split, 0 < val_split < 1, "use more than 0, less than 1")
        for option, values in {"mean": mean, "std": std}.items():
            fits = len(values) in (1, self.channels) and (option == "mean" or min(values) > 0)
            check(option, values, fits, f"use {one_of(sorted({1, self.channels}))} positive values")
        self.batch_size, self.num_workers = batch_size, num_workers
        self.mean, self.std = (tuple(values) * (self.channels // len(values)) for values in (mean, std))
        self.order_seed = order_seed
        if order_seed is not None:
            seed = order_seed
        # where Lightning's seed_everything leaves its seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        check_augmentation(self.hparams)
        self._for_training = training_transform(self.hparams, self.mean * (3 // self.channels))
        self._for_evaluation = evaluation_transform(self.hparams)
        self._sources: dict[Split, ImageSource] = {}
        self._tested_on_validation: bool | None = None
        self._datasets: dict[str, ClassifiedImages] = {}
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of their labels."""

    @abstractmethod
    def find(self, split: Split) -> ImageSource | None:
        """The images of a split; None if it has none, which is not allowed for training.

        Raises UserError if there should be some, or they cannot be listed.
        """

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def eval_transform(self, image: Image.Image) -> Tensor:
        """From any image to what the network sees in evaluation, normalised (C, S, S)."""
        rgb = to_rgb(image)
        if self.channels == 1:  # the first channel of a colour image is red, not grey
            rgb = rgb.convert("L").convert("RGB")
        pixels = self._for_evaluation(rgb)[: self.channels]
        shown_BCHW: Tensor = self.on_after_batch_transfer([pixels[None], None], 0)[0]
        return shown_BCHW[0]

    def source(self, split: Split) -> ImageSource:
        """The images of a split, listed at the first call.

        Without validation images, a part of the training images is held out. Without test images, those of
        validation are the test, as is usual for ImageNet, whose test labels are secret.

        Raises:
            UserError: there are no training images, or they cannot be listed.
        """
        if split in self._sources:
            return self._sources[split]
        found = self.find(split)
        if found is not None and split != "train":
            self._sources[split] = found
        elif split == "test":
            self._sources["test"] = self.source("val")
        elif split == "val":
            self.source("train")
        elif found is None:
            raise UserError("has no training images", key="data.init_args")
        else:
            self._sources["train"] = found
            if "val" not in self._sources:
                val = self.find("val")
                self._sources |= self._divided(found) if val is None else {"val": val}
        return self._sources[split]

    def setup(self, stage: str) -> None:
        """List the images that a stage needs, so that missing ones are reported before anything runs.

        Raises UserError if images are missing, all have one class, or there are fewer than a batch.
        """
        if stage == "fit":
            count, processes = len(self.source("train")), self._processes()[0]
            if self.num_classes < 2:
                raise UserError(
                    f"has one class, {', '.join(self.class_names)}; classification needs two",
                    key="data.init_args",
                )
            if count < self.batch_size * processes:
                each = f" in each of {processes} processes" if processes > 1 else ""
                raise UserError(
                    f"{self.batch_size}{each} is more than the {count} training images (lower it)",
                    key="data.init_args.batch_size",
                )
            self._warn_of_empty_classes()
        if stage in ("fit", "validate"):
            self.source("val")
        if stage in ("test", "predict"):
            self.source("test")

    def _warn_of_empty_classes(self) -> None:
        names = self.class_names
        counts = np.bincount(self.source("train").labels, minlength=len(names))
        empty = [names[label] for label in np.flatnonzero(counts == 0).tolist()]
        if empty:
            rank_zero_warn(f"{len(empty)} of {len(names)} classes have no training images: {some(empty)}")

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of augmented images: bytes, labels, and perhaps rectangles to erase."""
        dataset = self._dataset("train", self.source("train"), training=True)
        processes, rank = self._processes()
        sampler = EpochSampler(
            dataset,
            self.batch_size,
            self.seed,
            num_replicas=processes,
            rank=rank,
            repeats=self.hparams["repeated_augmentation"],
            groups=dataset.source.groups,
        )
        return self._loader(dataset, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in order, their centres."""
        return self._evaluation_loader("val", self.source("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images in order, their centres."""
        return self._evaluation_loader("test", self.source("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """All test images in order."""
        return self._evaluation_loader("test", self.source("test"), filled=False)

    @property
    def tests_on_validation(self) -> bool:
        """Whether the test images are those of validation, or links to them."""
        if self._tested_on_validation is None:
            test, val = self.source("test"), self.source("val")
            self._tested_on_validation = test is val or all_among(
                *(map(split.name, range(len(split))) for split in (test, val))
            )
        return self._tested_on_validation

    def test_images(self) -> Iterator[tuple[str, str]]:
        """Name and class of each test image, in order; only the list of them is read."""
        source, classes = self.source("test"), self.class_names
        names = below_common_folder([source.name(index) for index in range(len(source))])
        for name, label in zip(names, source.labels.tolist(), strict=True):
            yield name, classes[label] if 0 <= label < len(classes) else str(label)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise a loader's batch, and erase, on the batch's device.

        Returns:
            Images, float32 (B, C, S, S), and labels. A batch that is not of bytes is returned as it is.
        """
        if not isinstance(batch, list | tuple) or batch[0].dtype != torch.uint8:
            return batch
        images_BCHW, labels_B, *rectangles = batch
        mean, std = self._mean_and_std(images_BCHW.device)
        normal_BCHW = images_BCHW.float().sub_(mean).div_(std)
        if rectangles:
            erase(normal_BCHW, rectangles[0])
        return [normal_BCHW, labels_B]

    def _divided(self, whole: ImageSource) -> dict[Split, ImageSource]:
        share = self.hparams["val_split"]
        train, val = hold_out(whole, share)
        rank_zero_info(
            f"There are no validation images: {len(val)} of {len(whole)} training images are held out, "
            f"{share:g} of each class, the same ones in every run (data.val_split)."
        )
        return {"train": train, "val": val}

    def _mean_and_std(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """In bytes; copied to a device once, because a copy waits for everything queued on it."""
        if device not in self._on_device:
            mean, std = (torch.tensor(values).mul(255).view(-1, 1, 1) for values in (self.mean, self.std))
            self._on_device[device] = mean.to(device), std.to(device)
        return self._on_device[device]

    def _processes(self) -> tuple[int, int]:
        """How many processes train together, and the rank of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _dataset(self, name: str, source: ImageSource, *, training: bool = False) -> ClassifiedImages:
        if name not in self._datasets:
            options, side = self.hparams, self.hparams["image_size"]
            self._datasets[name] = ClassifiedImages(
                source,
                self._for_training if training else self._for_evaluation,
                (self.channels, side, side),
                training=training,
                erasing=options["random_erasing"],
                upright=options["upright"],
                max_unreadable=options["max_unreadable"],
            )
        return self._datasets[name]

    def _evaluation_loader(self, name: str, source: ImageSource, *, filled: bool = True) -> DataLoader[Any]:
        dataset = self._dataset(name, source)
        processes, rank = self._processes()
        if processes == 1:
            return self._loader(dataset)
        sampler = EvaluationSampler(dataset, num_replicas=processes, rank=rank, filled=filled)
        return self._loader(dataset, sampler=sampler)

    def _loader(self, dataset: ClassifiedImages, **options: Any) -> DataLoader[Any]:
        # a loader draws a seed for its workers: not from the generator that the training draws from
        generator = torch.Generator().manual_seed(self.seed)
        options |= {"batch_size": self.batch_size, "generator": generator}
        return make_loader(dataset, self.trainer, self.num_workers, as_tensors, **options)
