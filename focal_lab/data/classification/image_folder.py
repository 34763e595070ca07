"""Classification of images in files: ImageNet's class folders, archives, Hugging Face's tables."""

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from focal_lab.data.classification.class_names import differing, read_class_names, some
from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.loading.list_files import list_images
from focal_lab.data.option_checks import ROOT_KEY, check_place
from focal_lab.data.overlap import warn_of_training
from focal_lab.data.sources.find import ClassFolders, check_training, find_split, missing
from focal_lab.data.sources.image_source import UNKNOWN, FileSource, ImageSource, SplitImages
from focal_lab.data.sources.parquet import Columns
from focal_lab.errors import UserError


class ImageFolderDataModule(ClassificationDataModule):
    """Images under a folder, with timm's augmentation; detects their layout (docs/data.md).

    The classes are those of the training images in alphabetical order. Validation uses root/val, or a part of
    the training images; testing uses root/test, or the validation images.

    Args:
        root: folder that holds `train`, perhaps `val` and `test`.
        predict_root: a flat folder of images to predict; None predicts the test images.
        names: file under root with the names of the class folders: JSON of `{"folder": "name"}`, or a line
            `folder name` for each.
        image_column: of Parquet files with several columns of images.
        label_column: of Parquet files with several columns of classes.
        options: those of all classification data.

    Raises:
        UserError: an option is out of range. Missing folders are found by `setup`, so that a run can be
            planned on a machine that does not have the images.
    """

    def __init__(
        self,
        root: str,
        predict_root: str | None = None,
        names: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = Path(root)
        self.predict_root = Path(predict_root) if predict_root is not None else None
        self.names = self.root / names if names is not None else None
        self._columns = Columns(image_column, label_column)
        self._found: dict[str, SplitImages | None] = {}
        self._to_predict: ImageSource | None = None

    @property
    def folders(self) -> list[str]:
        """Names of the classes in the files, in the order of their labels.

        Raises UserError if there are no images.
        """
        # for a test alone, there may be no training images; the classes are compared with the checkpoint's
        for split in ("train", "val", "test"):
            found = self._find(split)
            if found is not None:
                return list(found.classes)
        raise missing(self.root, "train")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their labels.

        Raises UserError if there are no images, or the file of names is missing or wrong.
        """
        return self.folders if self.names is None else read_class_names(self.names, self.folders)

    @property
    def predict_files(self) -> list[Path]:
        """The images that `predict_dataloader` yields, in its order.

        Raises UserError if the folder is missing or has no image in it.
        """
        source = self._predicted()
        return [Path(source.name(index)) for index in range(len(source))]

    def check_files(self) -> None:
        """Check that training images and the file of names exist; raises UserError if not."""
        check_training(self.root)
        if self.names is not None:
            check_place("names", self.names.parent, self.names.name, "file")

    def find(self, split: Split) -> ImageSource | None:
        """The images of a split under root; None for a test without labels.

        Raises UserError if root is missing, or has something else where the split should be.
        """
        source = self._any(split)
        if source is None or not (source.labels == UNKNOWN).all():
            return source
        if split != "test":
            raise UserError(f"has no labels for {split}: all are -1 or null", file=self.root, key=ROOT_KEY)
        return None

    def _any(self, split: Split) -> ImageSource | None:
        found, train = self._find(split), self._find("train")
        if found is None:
            if split == "train" or not self.root.exists():
                raise missing(self.root, split)
            return None
        unknown = sorted(set(found.classes) - set(self.folders))
        if unknown:
            raise UserError(
                f"has classes that train lacks: {some(unknown)} (train has {some(self.folders)})",
                file=found.where,
            )
        # shards of several splits are in one folder, and one archive may hold all
        if isinstance(train, ClassFolders) and split != "train":
            warn_of_training(split, found.where, train.where)
        if train is not None and train.fixed and found.fixed:
            difference = differing(found.classes, self.folders[: len(found.classes)])
            if difference:
                raise UserError(
                    f"numbers its classes differently from {train.where}: {difference}", file=found.where
                )
        return found.source(self.folders)

    def setup(self, stage: str) -> None:
        """List the images that a stage needs, so that missing ones are reported before anything runs."""
        if stage == "predict":
            self._predicted()
        else:
            super().setup(stage)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of `predict_files` in order; those of `predict_root` have the label -1."""
        return self._evaluation_loader("predict", self._predicted(), filled=False)

    def _find(self, split: str) -> SplitImages | None:
        if split not in self._found:
            self._found[split] = find_split(self.root, split, self._columns)
        return self._found[split]

    def _predicted(self) -> ImageSource:
        if self._to_predict is None and self.predict_root is None:
            self._to_predict = self._any("test") or self.source("test")
        if self._to_predict is None:
            assert self.predict_root is not None
            files = [file.name for file in list_images(self.predict_root, "predict_root")]
            self._to_predict = FileSource(self.predict_root, files, [UNKNOWN] * len(files))
        return self._to_predict
