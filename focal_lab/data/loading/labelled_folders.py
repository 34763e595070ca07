"""Base class of data sets whose splits have a folder of images and separate labels: COCO, masks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.loading.collate import Batch, as_lists
from focal_lab.data.loading.list_files import list_images
from focal_lab.data.loading.loader import make_loader
from focal_lab.data.option_checks import check, check_least, check_place, check_seeds
from focal_lab.data.overlap import all_among
from focal_lab.errors import UserError


class LabelledFoldersDataModule(LightningDataModule, ABC):
    """Loaders and paths.

    A subclass saves its options as hyperparameters, `root`, `{split}_images` and `{split}_{labels}`,
    `predict_images`, `batch_size`, `num_workers`, `flip`, `mean` and `std` among them, `order_seed` if it has
    it, and calls `begin`.

    Attributes:
        order_seed: of everything random in training; None for the seed of the run.
    """

    channels = 3
    labels: ClassVar[str]

    def begin(self, least: Mapping[str, int]) -> None:
        """Check the common options.

        Args:
            least: smallest values of further options.

        Raises:
            UserError: an option is out of range.
        """
        options = self.hparams
        check_least(options, {"batch_size": 1, "num_workers": 0, **least})
        check_seeds(options, "order_seed")
        self.order_seed = options.get("order_seed")
        check("flip", options["flip"], 0 <= options["flip"] <= 1, "use 0 to 1")
        check("std", options["std"], min(options["std"]) > 0, "use positive values")
        tested = f"test_{self.labels}"
        if (options["test_images"] is None) != (options[tested] is None):
            raise UserError(
                f"test_images and {tested} must be given together", key="data.init_args.test_images"
            )
        self.root = Path(options["root"])
        places = {
            split: (options[f"{split}_images"], options[f"{split}_{self.labels}"])
            for split in ("train", "val", "test")
        }
        self._places: dict[str, tuple[str, str]] = places | (
            {"test": places["val"]} if options["test_images"] is None else {}
        )
        self.batch_size, self.num_workers = options["batch_size"], options["num_workers"]
        self.mean, self.std = tuple(options["mean"]), tuple(options["std"])

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def dataset(self, split: str) -> Dataset[Any]:
        """The images of train, val or test with their targets."""

    @abstractmethod
    def unlabelled(self, files: Sequence[Path]) -> Dataset[Any]:
        """Images to predict."""

    @abstractmethod
    def files(self, split: str) -> list[Path]:
        """The image files of a split."""

    def path(self, split: str, kind: str = "images") -> Path:
        """Where the images or the labels of a split are."""
        return self.root / self._places[split][kind != "images"]

    def check_files(self) -> None:
        """Check that all folders and files that options name exist; raises UserError if not."""
        for split, (images, labels) in self._places.items():
            check_place(f"{split}_images", self.root, images, "folder")
            kind = "folder" if self.labels == "masks" else "file"
            check_place(f"{split}_{self.labels}", self.root, labels, kind)

    def check_batch_size(self, count: int, what: str) -> None:
        """Raise UserError if training has fewer images than a batch."""
        if count < self.batch_size:
            raise UserError(
                f"{self.batch_size} is more than the {count} training images{what} (lower it)",
                key="data.init_args.batch_size",
            )

    @property
    def predict_files(self) -> list[Path] | None:
        """The images of `predict_images` by name; None if the test images are predicted.

        Raises UserError if the folder is missing or has no image in it.
        """
        folder = self.hparams["predict_images"]
        return None if folder is None else list_images(self.root / folder, "predict_images")

    @property
    def tests_on_validation(self) -> bool:
        """Whether the test images are those of validation, or links to them."""
        if self._places["test"] == self._places["val"]:
            return True
        kinds = ("images", self.labels)
        if not all(self.path(split, kind).exists() for split in ("test", "val") for kind in kinds):
            return False
        return all_among(*(map(str, self.files(split)) for split in ("test", "val")))

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation images in order, in their own size."""
        return self.loader(self.dataset("val"), batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test images in order, in their own size."""
        return self.loader(self.dataset("test"), batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of `predict_images`, or those of the test."""
        if self.hparams["predict_images"] is None:
            return self.test_dataloader()
        files = self.predict_files
        assert files is not None
        return self.loader(self.unlabelled(files), batch_size=self.batch_size)

    def loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        """A loader of lists of images and targets."""
        return make_loader(dataset, self.trainer, self.num_workers, as_lists, **options)
