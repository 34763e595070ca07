"""CIFAR's files, as Python pickles or as plain bytes. Nothing in them is executed."""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import read_text

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_FOLDERS = {
    10: ("cifar-10-batches-py", "cifar-10-batches-bin"),
    100: ("cifar-100-python", "cifar-100-binary"),
}
_TEN = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_HUNDRED = {"train": ("train",), "test": ("test",)}
# the functions and types that make an array of numpy anew
_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # how Python 3 writes bytes in this old format
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
}


@dataclass(frozen=True)
class Cifar:
    """Where one of the data sets lies.

    Attributes:
        folder: of its files.
        classes: 10 or 100.
        binary: plain bytes rather than pickles.
    """

    folder: Path
    classes: int
    binary: bool

    def files(self, split: str) -> list[Path]:
        """Those of train or test, in order."""
        names = (_TEN if self.classes == 10 else _HUNDRED)[split]
        return [self.folder / f"{name}{'.bin' if self.binary else ''}" for name in names]


def find_cifar(root: Path, classes: int) -> Cifar | None:
    """The data set in a folder, or that the folder is; None where there is none."""
    for folder in (root, *(root / name for name in _FOLDERS[classes])):
        for binary in (False, True):
            found = Cifar(folder, classes, binary)
            if found.files("test")[0].is_file():
                return found
    return None


def read_split(found: Cifar, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures, uint8, shape (N, 32, 32, 3), and labels, int64, shape (N,), of train or test.

    Raises:
        UserError: a file is missing or damaged.
    """
    read: Callable[[Path, int], tuple[NDArray[np.uint8], NDArray[np.int64]]]
    read = _read_bytes if found.binary else _read_pickle
    parts = [read(file, found.classes) for file in found.files(split)]
    pictures = np.concatenate([part[0] for part in parts]).reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)), np.concatenate([part[1] for part in parts])


def read_names(found: Cifar) -> list[str]:
    """Names of the classes; their numbers where the file of names is missing.

    Raises:
        UserError: the file of names is damaged.
    """
    fine = "fine_" if found.classes == 100 else ""
    if found.binary:
        path = found.folder / ("batches.meta.txt" if found.classes == 10 else "fine_label_names.txt")
        try:
            names = read_text(path).split() if path.is_file() else None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot be read ({error})", file=path) from error
    else:
        path = found.folder / ("batches.meta" if found.classes == 10 else "meta")
        names = _unpickled(path).get(f"{fine}label_names") if path.is_file() else None
    if names is None:
        return [str(number) for number in range(found.classes)]
    if not isinstance(names, list) or len(names) != found.classes:
        raise UserError(f"does not name {found.classes} classes", file=path)
    return [str(name) for name in names]


def _read_pickle(path: Path, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _unpickled(path)
    pictures, labels = content.get("data"), content.get("labels" if classes == 10 else "fine_labels")
    if (
        not isinstance(pictures, np.ndarray)
        or not isinstance(labels, list)
        or (pictures.dtype, pictures.shape) != (np.uint8, (len(labels), _PIXELS))
        or not all(type(label) is int for label in labels)
    ):
        raise UserError(f"is no batch of CIFAR-{classes}", file=path)
    return pictures, _checked(np.asarray(labels, np.int64), classes, path)


def _read_bytes(path: Path, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows of a label, in CIFAR-100 a coarse and a fine one, and the pixels."""
    content = np.frombuffer(_bytes(path), np.uint8)
    before = 1 if classes == 10 else 2
    if len(content) % (before + _PIXELS) or not len(content):
        raise UserError(f"is cut off: no multiple of {before + _PIXELS} bytes", file=path)
    rows = content.reshape(-1, before + _PIXELS)
    return rows[:, before:], _checked(rows[:, before - 1].astype(np.int64), classes, path)


def _checked(labels: NDArray[np.int64], classes: int, path: Path) -> NDArray[np.int64]:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"has labels that are not in 0 to {classes - 1}", file=path)
    return labels


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        content = _Arrays(io.BytesIO(_bytes(path)), encoding="latin1").load()
    except UserError:
        raise
    except Exception as error:
        # damaged pickles fail in many ways
        raise UserError(f"is damaged or no batch of CIFAR ({error})", file=path) from error
    return content if isinstance(content, dict) else {}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error


class _Arrays(pickle.Unpickler):
    """Makes texts, numbers, lists, dictionaries and arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The thing of that name, where it is one that makes arrays."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]
