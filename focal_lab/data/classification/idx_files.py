"""IDX files, MNIST's format (LeCun et al. 1998): a header of big-endian numbers, then bytes.

Own code rather than torchvision's, which reads unpacked files in its own folders only: Debian ships .gz.
"""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.option_checks import ROOT_KEY
from focal_lab.errors import UserError

_UBYTE = 8  # the element type of images and labels
# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte
_NAME = re.compile(r"(?:.*[-_])?(train|t10k|test)[-_](images|labels)[-.]idx[13][-_]ubyte(\.gz)?")
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
# where torchvision puts them
_FOLDERS = (".", "raw", "FashionMNIST/raw", "MNIST/raw")


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
