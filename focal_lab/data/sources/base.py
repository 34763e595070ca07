"""Where classified pictures lie: files, archives, tables or arrays behind one small interface."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UNKNOWN = -1  # the label of a picture without one


class Source(ABC):
    """Pictures with a label each; can be pickled, and read by several processes after a fork.

    Attributes:
        labels: int64, shape (N,); UNKNOWN where there is none.
        groups: the block of storage of each picture, int64, shape (N,), ascending; None where any picture is
            as near as any other. Whoever reads one picture of a block has read the others.
    """

    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes | Image.Image:
        """A picture, encoded as it is stored, or as it is where nothing is encoded."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Where a picture comes from, for people: a path where it has one."""


S = TypeVar("S", bound=Source)


class Names:
    """Many texts as one block of memory.

    A million `str` objects take 100 MB more, and that in each process of a loader: Python counts references
    in the objects themselves, so that pages shared after a fork become copies.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._ends = np.cumsum([len(part) for part in encoded], dtype=np.int64)
        self._block = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self._block[start : int(self._ends[index])].decode("utf-8", "surrogateescape")


def relabelled(source: S, labels: Sequence[int]) -> S:
    """The same pictures, where what was label i is labels[i]; UNKNOWN stays."""
    other = copy.copy(source)
    # its index, -1, is that of the last place
    other.labels = np.array([*labels, UNKNOWN], np.int64)[source.labels]
    return other


class FileSource(Source):
    """Files under a folder."""

    def __init__(self, folder: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        self.folder, self._names = folder, Names(names)
        self.labels = np.asarray(labels, np.int64).reshape(-1)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return Path(self.name(index)).read_bytes()

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.folder / self._names[index])


class ArraySource(Source):
    """Pictures in memory.

    Args:
        pictures: uint8, shape (N, H, W) for grey ones or (N, H, W, 3).
        labels: int64, shape (N,).
        origin: what to call them.
    """

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.int64], origin: str) -> None:
        self.pictures, self.labels, self.origin = pictures, labels, origin

    def read(self, index: int) -> Image.Image:
        """The picture."""
        return Image.fromarray(self.pictures[index])

    def name(self, index: int) -> str:
        """The array's name and the picture's place in it."""
        return f"{self.origin} {index}"


class PartSource(Source):
    """Some pictures of another source, in their order there."""

    def __init__(self, whole: Source, chosen: NDArray[np.int64]) -> None:
        self.whole, self.chosen = whole, np.sort(chosen)
        self.labels = whole.labels[self.chosen]
        self.groups = None if whole.groups is None else whole.groups[self.chosen]

    def read(self, index: int) -> bytes | Image.Image:
        """The picture."""
        return self.whole.read(int(self.chosen[index]))

    def name(self, index: int) -> str:
        """Its name in the whole."""
        return self.whole.name(int(self.chosen[index]))
