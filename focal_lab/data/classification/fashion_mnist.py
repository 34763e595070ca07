"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) and other data sets in IDX files."""

from pathlib import Path
from typing import Any

import numpy as np

from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.classification.idx_files import find_idx, read_idx
from focal_lab.data.option_checks import ROOT_KEY, check
from focal_lab.data.sources.base import ArraySource, ImageSource
from focal_lab.errors import UserError


class IdxDataModule(ClassificationDataModule):
    """Grey images in IDX files, MNIST's format, gzipped or not; a part of the training set validates.

    Args:
        root: folder of train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k or test, each
            perhaps with .gz.
        class_list: names of the classes in the order of their labels; None calls them by number.
        channels: of the images that the network sees: 3 equal ones, or 1.
        image_size: side of the square that the network sees, px.
        crop_padding: black px around an image from which training crops its square.
        crop_pct: evaluation takes the centre of an image enlarged to image_size / crop_pct.
        auto_augment: timm's policy string; None for none.
        color_jitter: strength of changes in brightness and contrast if there is no policy.
        random_erasing: probability that a rectangle of a training image is replaced by noise.
        mean: of the images on a scale of 0 to 1.
        std: of the images on a scale of 0 to 1.
        options: the others of all classification data.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`.
    """

    hint = "see docs/data.md"

    def __init__(
        self,
        root: str,
        class_list: list[str] | None = None,
        channels: int = 3,
        image_size: int = 28,
        crop_padding: int = 2,
        crop_pct: float = 1.0,
        auto_augment: str | None = None,
        color_jitter: float = 0.0,
        random_erasing: float = 0.0,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.5,),
        **options: Any,
    ) -> None:
        check("channels", channels, channels in (1, 3), "use 1 or 3")
        self.channels = channels
        super().__init__(
            image_size=image_size,
            crop_padding=crop_padding,
            crop_pct=crop_pct,
            auto_augment=auto_augment,
            color_jitter=color_jitter,
            random_erasing=random_erasing,
            mean=mean,
            std=std,
            **options,
        )
        self.root = Path(root)
        self._names = class_list

    @property
    def class_names(self) -> list[str]:
        """The given names, or the numbers; raises UserError if the training labels are missing or damaged."""
        if self._names is None:
            last = max(int(part.labels.max()) for part in (self.source("train"), self.source("val")))
            self._names = [str(number) for number in range(last + 1)]
        return self._names

    def find(self, split: Split) -> ImageSource | None:
        """All images of a split; None for validation; raises UserError if files are missing or damaged."""
        if split == "val":
            return None
        image_file, label_file = self._files(split)
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1).astype(np.int64)
        if len(images) != len(labels):
            reason = f"has {len(labels)} labels for {len(images)} images of {image_file.name}"
            raise UserError(reason, file=label_file)
        known = self._names if split == "train" else self.class_names
        if known is not None and labels.max(initial=0) >= len(known):
            reason = f"has the label {labels.max()}, and there are {len(known)} classes"
            raise UserError(reason, file=label_file)
        # called by the split, not by the file: whether that is gzipped must not change what is held out
        return ArraySource(images, labels, split)

    def check_files(self) -> None:
        """Check that all files exist; raises UserError if not."""
        for split in ("train", "test"):
            self._files(split)

    def _files(self, split: str) -> tuple[Path, Path]:
        """The images and the labels of a split."""
        files = find_idx(self.root)
        for kind in ("images", "labels"):
            if (split, kind) not in files:
                name = "train" if split == "train" else "t10k"
                raise UserError(
                    f"has no {name}-{kind} in IDX format, gzipped or not ({self.hint})",
                    file=self.root,
                    key=ROOT_KEY,
                )
        return files[split, "images"], files[split, "labels"]


class FashionMnistDataModule(IdxDataModule):
    """Zalando's 60,000 training and 10,000 test images of clothes, 28 px, grey, ten classes.

    By default Debian's package dataset-fashion-mnist is read. A tenth of the training images validates.

    Args:
        root: folder of the IDX files, gzipped or not.
        mean: of the images on a scale of 0 to 1.
        std: of the images on a scale of 0 to 1.
        options: those of all IDX files, except the names of the classes.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`.
    """

    hint = (
        "on Debian and Ubuntu: apt install dataset-fashion-mnist; else the four .gz files of the "
        "Fashion-MNIST repository"
    )

    def __init__(
        self,
        root: str = "/usr/share/datasets/fashion-mnist",
        mean: tuple[float, ...] = (0.2860,),
        std: tuple[float, ...] = (0.3530,),
        **options: Any,
    ) -> None:
        super().__init__(root, class_list=list(FASHION), mean=mean, std=std, **options)


FASHION = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
