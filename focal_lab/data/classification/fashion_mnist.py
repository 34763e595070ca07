"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) and other data sets in IDX files.

IDX is MNIST's format (LeCun et al. 1998): a header of big-endian numbers, then bytes. Own code rather than
torchvision's, which reads unpacked files in its own folders only: Debian ships .gz.
"""

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.option_checks import ROOT_KEY, check
from focal_lab.data.sources.image_source import ArraySource, ImageSource
from focal_lab.errors import UserError

_UBYTE = 8  # the element type of images and labels
# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte
_NAME = re.compile(r"(?:.*[-_])?(train|t10k|test)[-_](images|labels)[-.]idx[13][-_]ubyte(\.gz)?")
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
# where torchvision puts them
_FOLDERS = (".", "raw", "FashionMNIST/raw", "MNIST/raw")


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


def find_idx(root: Path) -> dict[tuple[str, str], Path]:
    """The files of a data set by split, train or test, and by content, images or labels.

    Raises UserError if there are files of several data sets.
    """
    found: dict[tuple[str, str], Path] = {}
    for folder in filter(Path.is_dir, (root / name for name in _FOLDERS)):
        for path in sorted(folder.iterdir(), reverse=True):  # an unpacked file comes last, and counts
            named = _NAME.fullmatch(path.name)
            if named is None:
                continue
            other = found.get((_SPLITS[named[1]], named[2]), path)
            if other.name.removesuffix(".gz") != path.name.removesuffix(".gz"):
                reason = f"{path.name} and {other.name} are of different data sets (use a folder for each)"
                raise UserError(reason, file=root, key=ROOT_KEY)
            found[_SPLITS[named[1]], named[2]] = path
        if found:
            break
    return found


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file, gzipped or not.

    Raises UserError if it is missing, damaged, or has another number of dimensions.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot be read ({error})", file=path) from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError("is not an IDX file", file=path)
    kind, found = content[2], content[3]
    if (kind, found) != (_UBYTE, dimensions):
        raise UserError(
            f"has {found} dimensions of type {kind:#x}; {dimensions} of type {_UBYTE:#x} are needed",
            file=path,
        )
    start = 4 + 4 * found
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    if len(shape) != found or len(content) - start != np.prod(shape, dtype=np.int64):
        raise UserError(f"is cut off or damaged: {len(content) - start} bytes for {shape}", file=path)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
