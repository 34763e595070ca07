"""Classification of pictures in files: folders in ImageNet's layout, archives, Hugging Face's tables."""

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from focal_lab.data.classification.class_names import differing, read_class_names, shortened
from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.loading.decode import load_picture as load_picture
from focal_lab.data.loading.list_files import list_pictures_of
from focal_lab.data.overlap import warn_of_training
from focal_lab.data.sources.base import UNKNOWN, FileSource, Source
from focal_lab.data.sources.find import ClassFolders, check_training, find_split, missing
from focal_lab.data.sources.found import ROOT_KEY, Found
from focal_lab.data.sources.parquet import Columns
from focal_lab.data.sources.present import check_present
from focal_lab.errors import UserError


class ImageFolderDataModule(ClassificationDataModule):
    """Pictures under a folder, with timm's augmentation; finds by itself how they lie there (docs/data.md).

    The classes are those of the training pictures in alphabetical order. Validation uses root/val, and a part
    of the training pictures where there is none; testing uses root/test, and what validation uses where there
    is none, as is usual for ImageNet, whose test labels are secret.

    Args:
        root: folder that holds `train`, perhaps `val` and `test`.
        predict_root: a flat folder of pictures to predict; None predicts the test pictures.
        names: file under root that says what class folders are called: JSON of `{"folder": "name"}`, or a
            line `folder name` for each.
        image_column: of Parquet files, where it is not the only one of pictures.
        label_column: of Parquet files, where it is not the only one of classes.
        options: those of all classification data.

    Raises:
        UserError: an option is out of range. Missing folders are found by `setup`, so that a run can be
            planned on a machine that does not have the pictures.
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
        self._found: dict[str, Found | None] = {}
        self._to_predict: Source | None = None

    @property
    def folders(self) -> list[str]:
        """What the classes are called where they lie; a picture's label counts along them.

        Raises:
            UserError: there are no pictures.
        """
        # who only tests may have no training pictures; a checkpoint knows its classes, and they are compared
        for split in ("train", "val", "test"):
            found = self._find(split)
            if found is not None:
                return list(found.classes)
        raise missing(self.root, "train")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their folders.

        Raises:
            UserError: there are no pictures, or the file of names is missing or wrong.
        """
        return self.folders if self.names is None else read_class_names(self.names, self.folders)

    @property
    def predict_files(self) -> list[Path]:
        """The pictures that `predict_dataloader` yields, in its order.

        Raises:
            UserError: the folder is missing or has no picture in it.
        """
        source = self._predicted()
        return [Path(source.name(index)) for index in range(len(source))]

    def check_files(self) -> None:
        """Look whether there are training images, and the file of names; raises UserError where not."""
        check_training(self.root)
        if self.names is not None:
            check_present(self.names.parent, {}, {"names": self.names.name})

    def find(self, split: Split) -> Source | None:
        """The pictures of a split under root; a test without labels tests nothing, and counts as none.

        Raises:
            UserError: root is missing, or has something else where the split should be.
        """
        source = self._any(split)
        if source is None or not (source.labels == UNKNOWN).all():
            return source
        if split != "test":
            raise UserError(f"has no labels for {split}: all are -1 or null", file=self.root, key=ROOT_KEY)
        return None

    def _any(self, split: Split) -> Source | None:
        found = self._find(split)
        if found is None:
            if split == "train" or not self.root.exists():
                raise missing(self.root, split)
            return None
        unknown = sorted(set(found.classes) - set(self.folders))
        if unknown:
            raise UserError(
                f"has classes that train lacks: {shortened(unknown)} (train has {shortened(self.folders)})",
                file=found.where,
            )
        train = self._find("train")
        # shards of several splits lie in one folder, and one archive may hold all
        if isinstance(train, ClassFolders) and split != "train":
            warn_of_training(split, found.where, train.where)
        if train is not None and train.fixed and found.fixed:
            same = self.folders[: len(found.classes)]
            difference = differing(found.classes, same)
            if difference:
                raise UserError(
                    f"numbers its classes otherwise than {train.where}: {difference}", file=found.where
                )
        return found.source(self.folders)

    def setup(self, stage: str) -> None:
        """List the pictures that a stage needs, so that what is missing is said before anything runs."""
        if stage == "predict":
            self._predicted()
        else:
            super().setup(stage)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The pictures of `predict_files` in order; those of `predict_root` have the label -1."""
        return self._evaluation_loader("predict", self._predicted(), filled=False)

    def _find(self, split: str) -> Found | None:
        if split not in self._found:
            self._found[split] = find_split(self.root, split, self._columns)
        return self._found[split]

    def _predicted(self) -> Source:
        if self._to_predict is None and self.predict_root is None:
            self._to_predict = self._any("test") or self.source("test")
        if self._to_predict is None:
            assert self.predict_root is not None
            files = [file.name for file in list_pictures_of(self.predict_root, "predict_root")]
            self._to_predict = FileSource(self.predict_root, files, [UNKNOWN] * len(files))
        return self._to_predict
