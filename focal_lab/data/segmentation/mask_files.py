"""Files of segmentation data: pictures, masks with a class number in every pixel, and the classes' names.

Shape suffixes: H W size of a picture in px.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focal_lab.data.classification.class_names import some
from focal_lab.data.loading.decode import possible_sizes
from focal_lab.data.loading.list_files import JUNK, LeftOut, is_junk, list_pictures_of
from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import read_text

# What a mask of class numbers is stored as: 8 or 16 bits in one channel.
_NUMBERED = ("L", "I;16", "I;16B", "I")
THREADS = 8


@dataclass(frozen=True)
class Pair:
    """A picture and its mask, which one to be predicted does not have.

    Attributes:
        palette: red, green and blue of the mask's numbers, where it has colours for them.
    """

    picture: Path
    mask: Path | None
    palette: bytes = b""


@dataclass(frozen=True)
class Numbering:
    """What the numbers in masks mean.

    Attributes:
        classes: how many there are.
        ignored: number, and label, of pixels that do not count.
        from_one: whether 0 does not count either, and 1 is the first class.
    """

    classes: int
    ignored: int
    from_one: bool

    def labels(self, numbers_HW: NDArray[Any], file: Path) -> NDArray[Any]:
        """Labels from 0, of the numbers' kind or a larger one.

        Raises:
            UserError: a number is that of no class.
        """
        first = int(self.from_one)
        if numbers_HW.min(initial=0) < 0:
            raise UserError(f"has the value {numbers_HW.min()}, and classes count from {first}", file=file)
        counts = np.bincount(numbers_HW.ravel(), minlength=1)
        there = np.flatnonzero(counts)
        wrong = [
            number for number in there.tolist() if number != self.ignored and number >= self.classes + first
        ]
        if wrong:
            more = f" or {self.ignored}" if self.ignored >= self.classes + first else ""
            raise UserError(
                f"has the value {wrong[0]} in {counts[wrong[0]]} pixels, and there are {self.classes} "
                f"classes (use {first} to {self.classes + first - 1}{more}; name more classes, or "
                "set data.init_args.ignore_index to a number that does not count)",
                file=file,
            )
        table = np.arange(max(int(there.max(initial=0)), self.ignored) + 1) - first
        table[:first], table[self.ignored] = self.ignored, self.ignored
        kind = np.uint8 if max(self.ignored, self.classes) < 256 else np.int32
        return np.asarray(table.astype(kind)[numbers_HW])


def find_pairs(images: Path, masks: Path, split: str, palette: bool) -> list[Pair]:
    """Pictures by name, each with its mask; only headers are read.

    Args:
        images: folder of pictures.
        masks: folder of masks.
        split: which options name the folders.
        palette: whether masks may have a palette.

    Raises:
        UserError: a folder is missing or empty, or a mask is missing or of another size or kind.
    """
    files = list_pictures_of(images, f"{split}_images")
    if not masks.is_dir():
        raise UserError("is not a folder", file=masks, key=f"data.init_args.{split}_masks")
    there = _masks_in(masks, f"data.init_args.{split}_masks")
    # X.jpg.png is of X.jpg alone, as `predict` calls it where X.png is an image, too
    names = [file.name if file.name in there else file.stem for file in files]
    _check_names(files, names, there)
    missing = [file for file, name in zip(files, names, strict=True) if name not in there]
    if missing:
        more = f", and {len(missing) - 1} other masks" if len(missing) > 1 else ""
        raise UserError(f"does not exist, but {missing[0]} does{more}", file=masks / f"{missing[0].stem}.png")
    pairs = [Pair(file, there[name]) for file, name in zip(files, names, strict=True)]
    with ThreadPoolExecutor(THREADS) as threads:
        palettes = threads.map(lambda pair: _check_headers(pair, palette), pairs)
        return [replace(pair, palette=colours) for pair, colours in zip(pairs, palettes, strict=True)]


def _masks_in(folder: Path, key: str) -> dict[str, Path]:
    """Masks by their names without .png.

    Raises:
        UserError: there are none, or several of a name.
    """
    found: dict[str, Path] = {}
    left = LeftOut()
    for file in sorted(folder.iterdir()):
        if is_junk(file.name):
            left.add(JUNK, file.name)
        elif file.suffix.lower() != ".png" or not file.is_file():
            left.add_file(file.name)
        elif file.stem in found:
            raise UserError(f"is the mask of the same image as {found[file.stem].name}", file=file, key=key)
        else:
            found[file.stem] = file
    if not found:
        more = f"; found {left}" if left.kinds else ""
        raise UserError(f"has no masks (.png){more}", file=folder, key=key)
    left.warn(folder)
    return found


def _check_names(files: Sequence[Path], names: Sequence[str], there: Mapping[str, Path]) -> None:
    """Each image must have a mask of its own; masks without an image are counted in a warning.

    Raises:
        UserError: two images have the same mask.
    """
    of: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if name in there and name in of:
            raise UserError(
                f"is the mask of {of[name].name} and of {file.name} (call masks {of[name].name}.png and "
                f"{file.name}.png)",
                file=there[name],
            )
        of[name] = file
    spare = [there[name].name for name in there if name not in of]
    if spare:
        folder = next(iter(there.values())).parent
        warnings.warn(f"{folder}: {len(spare)} masks have no image: {some(spare)}", stacklevel=4)


def check_palettes(pairs: Sequence[Pair], numbers: int) -> None:
    """All masks must have the same colours for the numbers of classes, or their classes are exchanged.

    Raises:
        UserError: two of them do not.
    """
    coloured = [pair for pair in pairs if pair.palette]
    for pair in coloured[1:]:
        first = coloured[0]
        for number in range(min(numbers, len(pair.palette) // 3, len(first.palette) // 3)):
            here, there = (tuple(one.palette[3 * number : 3 * number + 3]) for one in (pair, first))
            if here != there:
                raise UserError(
                    f"has the colour {here} for {number}, and {first.mask} has {there}: palettes whose "
                    "indices are classes must be the same",
                    file=pair.mask,
                    key="data.init_args.palette_masks",
                )


def mask_size(path: Path) -> tuple[int, int]:
    """Height and width of a mask, by its header.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            return opened.height, opened.width
    except Exception as error:
        raise UserError(f"cannot be read as a mask ({error})", file=path) from error


def read_classes(path: Path) -> tuple[str, ...]:
    """Names from a file.

    Raises:
        UserError: it is missing, empty, or not of a known form.
    """
    key = "data.init_args.classes"
    if not path.is_file():
        raise UserError(
            "does not exist; it names the classes (a JSON list, or one name a line)", file=path, key=key
        )
    try:
        text = read_text(path)
        found = json.loads(text) if path.suffix == ".json" else _lines(text)
    except ValueError as error:
        raise UserError(f"cannot be read ({error})", file=path, key=key) from error
    found = found.get("classes") if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise UserError("is no list of names", file=path, key=key)
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise UserError(f"names {twice[0]!r} twice", file=path, key=key)
    return tuple(found)


def _lines(text: str) -> list[str]:
    """One name a line; of ADE20K's table, whose last column is the name, up to its first synonym."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].split()[:2] == ["Idx", "Ratio"]:
        return [line.split("\t")[-1].split(",")[0].strip() for line in lines[1:]]
    return lines


def _check_headers(pair: Pair, palette: bool) -> bytes:
    """The mask's palette, empty for none."""
    assert pair.mask is not None
    try:
        with Image.open(pair.mask) as opened:
            mode, size = opened.mode, opened.size
            colours = bytes(opened.getpalette("RGB") or ())
    except Exception as error:
        raise UserError(f"cannot be read as a mask ({error})", file=pair.mask) from error
    if mode == "P" and not palette:
        raise UserError(
            "has a palette; if its indices are the classes, say so",
            file=pair.mask,
            key="data.init_args.palette_masks",
        )
    if mode not in _NUMBERED and mode != "P":
        raise UserError(
            f"has {mode} pixels; a mask has one channel with the number of a class (8 or 16 bits)",
            file=pair.mask,
        )
    try:
        with Image.open(pair.picture) as opened:
            sizes = possible_sizes(opened)
            told = f"{opened.width} x {opened.height}"
    except Exception as error:
        raise UserError(f"cannot be decoded as an image ({error})", file=pair.picture) from error
    if size not in sizes:
        raise UserError(
            f"is {size[0]} x {size[1]} px, and its picture {pair.picture} is {told}", file=pair.mask
        )
    return colours
