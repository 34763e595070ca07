"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 px in colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.option_checks import ROOT_KEY, check
from focal_lab.data.sources.image_source import ArraySource, ImageSource
from focal_lab.errors import UserError


class CifarDataModule(ClassificationDataModule):
    """CIFAR with 10 or 100 classes, read by torchvision; a part of the training set validates.

    torchvision compares the files with the published checksums before it reads them. Training crops images
    with black borders, as the recipes of DeiT and Swin do at this size.

    Args:
        root: folder that holds `cifar-10-batches-py`, for 100 classes `cifar-100-python`, or this itself.
        classes: 10 or 100.
        download: whether torchvision downloads missing files into root.
        image_size: side of the square that the network sees, px.
        crop_padding: black px around an image from which training crops its square.
        crop_pct: evaluation takes the centre of an image enlarged to image_size / crop_pct.
        mean: of the channels on a scale of 0 to 1; the default is CIFAR-10's.
        std: of the channels on a scale of 0 to 1.
        options: the others of all classification data.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`.
    """

    def __init__(
        self,
        root: str,
        classes: Literal[10, 100] = 10,
        download: bool = False,
        image_size: int = 32,
        crop_padding: int = 4,
        crop_pct: float = 1.0,
        mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465),
        std: tuple[float, ...] = (0.2470, 0.2435, 0.2616),
        **options: Any,
    ) -> None:
        super().__init__(
            image_size=image_size,
            crop_padding=crop_padding,
            crop_pct=crop_pct,
            mean=mean,
            std=std,
            **options,
        )
        check("classes", classes, classes in (10, 100), "use 10 or 100")
        self._kind: type[CIFAR10] = CIFAR10 if classes == 10 else CIFAR100
        self.root, folder = Path(root), Path(root).absolute()
        if folder.name == self._kind.base_folder:
            self.root = folder.parent
        elif (folder / self._kind.test_list[0][0]).is_file():  # the folder has another name
            self.root = folder.parent
            self._kind = type(self._kind.__name__, (self._kind,), {"base_folder": folder.name})
        self._read: dict[str, CIFAR10] = {}

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of their labels.

        Raises UserError if the files are missing or damaged.
        """
        names: list[str] = self._split("test").classes
        return names

    def prepare_data(self) -> None:
        """Download missing files if requested; raises UserError if they cannot be downloaded."""
        if self.hparams["download"] and self._missing():
            try:
                self._kind(str(self.root), download=True)
            except (OSError, RuntimeError) as error:
                key = "data.init_args.download"
                raise UserError(f"cannot be downloaded ({error})", file=self.root, key=key) from error

    def check_files(self) -> None:
        """Check that the files exist, unless they may be downloaded; raises UserError if one does not."""
        missing = self._missing()
        if missing and not self.hparams["download"]:
            folder = self._kind.base_folder
            lacks = f"no {folder}" if not (self.root / folder).is_dir() else f"no {missing[0]}"
            raise UserError(
                f"has {lacks} in it (unpack the Python version there, or let torchvision download it: "
                "--data.download=true)",
                file=self.root,
                key=ROOT_KEY,
            )

    def find(self, split: Split) -> ImageSource | None:
        """All images of a split; None for validation; raises UserError if files are missing or damaged."""
        if split == "val":
            return None
        read = self._split(split)
        return ArraySource(read.data, np.asarray(read.targets, np.int64), split)

    def _missing(self) -> list[str]:
        kind = self._kind
        names = [name for name, _ in [*kind.train_list, *kind.test_list]] + [kind.meta["filename"]]
        paths = [f"{kind.base_folder}/{name}" for name in names]
        return [path for path in paths if not (self.root / path).is_file()]

    def _split(self, split: str) -> CIFAR10:
        if split not in self._read:
            self.check_files()
            try:
                self._read[split] = self._kind(str(self.root), train=split == "train")
            except (OSError, RuntimeError) as error:
                reason = "is damaged: a file does not have the published checksum (unpack it again)"
                raise UserError(reason, file=self.root / self._kind.base_folder) from error
        return self._read[split]
