"""IDX files, MNIST's format (LeCun et al. 1998): a header of big-endian numbers, then bytes."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focal_lab.errors import UserError

_UBYTE = 8  # the only type of number that pictures and labels have
# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte
_NAME = re.compile(r"(?:.*[-_])?(train|t10k|test)[-_](images|labels)[-.]idx[13][-_]ubyte(\.gz)?")
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
# where torchvision puts them
_FOLDERS = (".", "raw", "FashionMNIST/raw", "MNIST/raw")
_KEY = "data.init_args.root"


def find_idx(root: Path) -> dict[tuple[str, str], Path]:
    """The files of a data set by split, train or test, and by what is in them, images or labels.

    Raises:
        UserError: there are files of several data sets.
    """
    found: dict[tuple[str, str], Path] = {}
    for folder in _FOLDERS:
        if not (root / folder).is_dir():
            continue
        for path in sorted((root / folder).iterdir(), reverse=True):  # unpacked ones last: they count
            named = _NAME.fullmatch(path.name)
            if named is None:
                continue
            key = _SPLITS[named[1]], named[2]
            other = found.get(key)
            if other is not None and other.name.removesuffix(".gz") != path.name.removesuffix(".gz"):
                raise UserError(
                    f"{path.name} and {other.name} are of different data sets (use a folder for each)",
                    file=root,
                    key=_KEY,
                )
            found[key] = path
        if found:
            break
    return found


def read_pictures(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures, uint8, shape (N, H, W), and labels, int64, shape (N,).

    Raises:
        UserError: a file is missing or damaged, or there are more of one than of the other.
    """
    pictures, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pictures) != len(numbers):
        raise UserError(
            f"has {len(numbers)} labels for {len(pictures)} pictures of {images.name}", file=labels
        )
    return pictures, numbers.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file, gzipped or not.

    Raises:
        UserError: it is missing, damaged, or has another number of dimensions.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot be read ({error})", file=path) from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError("is no IDX file", file=path)
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
