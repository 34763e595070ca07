"""Common interface of all sources of classified images: files, archives, tables and arrays."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focal_lab.errors import UserError

UNKNOWN = -1  # the label of an image without one
# names of the splits' folders and files: ours, then Hugging Face's and other common ones
SPLIT_NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
# ImageNet's largest version has 21,841; a label far above is a mistake, and would exhaust the memory
_MOST_CLASSES = 1_000_000


class ImageSource(ABC):
    """Images with a label each; can be pickled, and read by several processes after a fork.

    Attributes:
        labels: int64, shape (N,); UNKNOWN where there is none.
        groups: the block of storage that each image is in, int64, shape (N,), ascending; reading one image of
            a block reads the others. None if images are stored one by one.
    """

    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes | Image.Image:
        """An image, encoded if it is stored encoded."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's path, or another description of where it is stored."""


@dataclass(frozen=True, kw_only=True)
class SplitImages(ABC):
    """The images of a split, before it is known which label each class gets.

    Attributes:
        where: folder or file that messages name.
        classes: names of its classes, in their order.
        fixed: whether the files themselves number the classes, so that all splits must agree.
    """

    where: Path
    classes: Sequence[str]
    fixed: bool = False

    @abstractmethod
    def source(self, classes: Sequence[str]) -> ImageSource:
        """The images, labelled by their index in `classes`."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages(SplitImages):
    """Images that already have labels, by their index in their own `classes`."""

    own: ImageSource

    def source(self, classes: Sequence[str]) -> ImageSource:
        numbers = {name: label for label, name in enumerate(classes)}
        other = copy.copy(self.own)
        # UNKNOWN is -1, the index of the last entry
        labels = np.array([*(numbers[name] for name in self.classes), UNKNOWN], np.int64)
        other.labels = labels[self.own.labels]
        return other


def packed(names: Iterable[str]) -> NDArray[np.bytes_]:
    """Many names as one block of memory, of which `unpacked` reads one.

    A million `str` objects take 100 MB more in each worker process: reference counts are in the objects
    themselves, so that pages shared after a fork become copies.
    """
    # not the locale's encoding: archives may hold any name
    return np.array([name.encode("utf-8", "surrogateescape") for name in names], np.bytes_)


def unpacked(name: bytes) -> str:
    """A name of `packed`."""
    return name.decode("utf-8", "surrogateescape")


def numbers_to(last: int, where: Path) -> list[str]:
    """Class names "0" to `last`; raises UserError if there are too many."""
    if last >= _MOST_CLASSES:
        raise UserError(f"has the label {last}; up to {_MOST_CLASSES - 1} can be read", file=where)
    return [str(number) for number in range(last + 1)]


class FileSource(ImageSource):
    """Files under a folder."""

    def __init__(self, folder: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        self.folder, self._names = folder, packed(names)
        self.labels = np.asarray(labels, np.int64).reshape(-1)

    def read(self, index: int) -> bytes:
        return Path(self.name(index)).read_bytes()

    def name(self, index: int) -> str:
        return str(self.folder / unpacked(self._names[index]))


class ArraySource(ImageSource):
    """Images in memory: uint8, shape (N, H, W) or (N, H, W, 3), called `origin` and their index."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], origin: str) -> None:
        self.images, self.labels, self.origin = images, labels, origin

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        return f"{self.origin} {index}"


class PartSource(ImageSource):
    """Some images of another source, in their order there."""

    def __init__(self, whole: ImageSource, chosen: NDArray[np.int64]) -> None:
        self.whole, self.chosen = whole, np.sort(chosen)
        self.labels = whole.labels[self.chosen]
        self.groups = None if whole.groups is None else whole.groups[self.chosen]

    def read(self, index: int) -> bytes | Image.Image:
        return self.whole.read(int(self.chosen[index]))

    def name(self, index: int) -> str:
        return self.whole.name(int(self.chosen[index]))


def hold_out(source: ImageSource, share: float) -> tuple[PartSource, PartSource]:
    """Split training images into training and validation, stratified by class.

    Each class gives `share` of its images, at least one if it has two. Which ones depends only on the file
    names of the class: not on a seed, on other classes or on where the data are. New images change little.
    """
    held: list[int] = []
    for label in np.unique(source.labels):
        images = np.flatnonzero(source.labels == label).tolist()
        count = min(max(1, round(share * len(images))), len(images) - 1)
        held += sorted(images, key=lambda index: _hash(source, index))[:count]
    chosen = np.zeros(len(source), bool)
    chosen[held] = True
    return PartSource(source, np.flatnonzero(~chosen)), PartSource(source, np.flatnonzero(chosen))


def _hash(source: ImageSource, index: int) -> tuple[bytes, int]:
    name = PurePath(source.name(index)).name.encode("utf-8", "surrogateescape")
    return blake2b(name, digest_size=8).digest(), index
