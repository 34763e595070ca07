"""Finds and checks the files of segmentation data: images, their masks, and the classes' names."""

import json
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from focal_lab.data.classification.class_names import some
from focal_lab.data.loading.decode import possible_sizes
from focal_lab.data.loading.list_files import JUNK, LeftOut, is_junk, list_images
from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import read_text

# Pillow's modes of masks: 8 or 16 bits in one channel.
_NUMBERED = ("L", "I;16", "I;16B", "I")
THREADS = 8


@dataclass(frozen=True)
class MaskedImage:
    """An image and its mask, None for one to be predicted; `palette` is the mask's, as RGB bytes."""

    image: Path
    mask: Path | None
    palette: bytes = b""


def find_masked_images(images: Path, masks: Path, split: str, palette: bool) -> list[MaskedImage]:
    """Images of a folder by name, each with its mask in another; only headers are read.

    Raises UserError if a folder is missing or empty, or a mask is missing, of another size or kind than its
    image, or has a palette although `palette` does not allow it.
    """
    files = list_images(images, f"{split}_images")
    if not masks.is_dir():
        raise UserError("is not a folder", file=masks, key=f"data.init_args.{split}_masks")
    found = _masks_in(masks, f"data.init_args.{split}_masks")
    # X.jpg.png belongs to X.jpg alone, as `predict` calls it if X.png is an image, too
    names = [file.name if file.name in found else file.stem for file in files]
    _check_names(files, names, found)
    missing = [file for file, name in zip(files, names, strict=True) if name not in found]
    if missing:
        more = f", and {len(missing) - 1} other masks" if len(missing) > 1 else ""
        raise UserError(f"does not exist, but {missing[0]} does{more}", file=masks / f"{missing[0].stem}.png")
    chosen = [found[name] for name in names]
    with ThreadPoolExecutor(THREADS) as threads:
        palettes = threads.map(lambda image, mask: _check_headers(image, mask, palette), files, chosen)
        return list(map(MaskedImage, files, chosen, palettes))


def _masks_in(folder: Path, key: str) -> dict[str, Path]:
    """Masks by their names without .png; raises UserError if there are none, or several of a name."""
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


def _check_names(files: Sequence[Path], names: Sequence[str], masks: Mapping[str, Path]) -> None:
    """Warn of masks without an image; raises UserError if two images have the same mask."""
    of: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if name in masks and name in of:
            raise UserError(
                f"is the mask of {of[name].name} and of {file.name} (call masks {of[name].name}.png and "
                f"{file.name}.png)",
                file=masks[name],
            )
        of[name] = file
    spare = [mask.name for name, mask in masks.items() if name not in of]
    if spare:
        folder = next(iter(masks.values())).parent
        warnings.warn(f"{folder}: {len(spare)} masks have no image: {some(spare)}", stacklevel=4)


def check_palettes(images: Sequence[MaskedImage], numbers: int) -> None:
    """Check that all masks have the same colours for the numbers of classes; else classes are exchanged.

    Raises UserError if two of them do not.
    """
    coloured = [one for one in images if one.palette]
    for one in coloured[1:]:
        first = coloured[0]
        for number in range(min(numbers, len(one.palette) // 3, len(first.palette) // 3)):
            here, there = (tuple(mask.palette[3 * number : 3 * number + 3]) for mask in (one, first))
            if here != there:
                raise UserError(
                    f"has the colour {here} for {number}, and {first.mask} has {there}: palettes whose "
                    "indices are classes must be the same",
                    file=one.mask,
                    key="data.init_args.palette_masks",
                )


def mask_size(path: Path) -> tuple[int, int]:
    """Height and width of a mask, by its header; raises UserError if it cannot be read."""
    _, (width, height), _ = _mask_header(path)
    return height, width


def _mask_header(path: Path) -> tuple[str, tuple[int, int], bytes]:
    """Mode, width and height, and palette, empty for none."""
    try:
        with Image.open(path) as opened:
            return opened.mode, opened.size, bytes(opened.getpalette("RGB") or ())
    except Exception as error:
        raise UserError(f"cannot be read as a mask ({error})", file=path) from error


def _check_headers(image: Path, mask: Path, palette: bool) -> bytes:
    """The mask's palette, empty for none; raises UserError if mask and image do not fit."""
    mode, size, colours = _mask_header(mask)
    if mode == "P" and not palette:
        key = "data.init_args.palette_masks"
        raise UserError("has a palette; if its indices are the classes, say so", file=mask, key=key)
    if mode not in (*_NUMBERED, "P"):
        reason = f"has {mode} pixels; a mask has one channel with the number of a class (8 or 16 bits)"
        raise UserError(reason, file=mask)
    try:
        with Image.open(image) as opened:
            sizes, stored = possible_sizes(opened), f"{opened.width} x {opened.height}"
    except Exception as error:
        raise UserError(f"cannot be decoded as an image ({error})", file=image) from error
    if size not in sizes:
        raise UserError(f"is {size[0]} x {size[1]} px, and its image {image} is {stored}", file=mask)
    return colours


def read_classes(path: Path) -> tuple[str, ...]:
    """Names from a file; raises UserError if it is missing, empty, or not of a known form."""

    def refused(reason: str) -> UserError:
        return UserError(reason, file=path, key="data.init_args.classes")

    if not path.is_file():
        raise refused("does not exist; it names the classes (a JSON list, or one name a line)")
    try:
        text = read_text(path)
        found = json.loads(text) if path.suffix == ".json" else _lines(text)
    except ValueError as error:
        raise refused(f"cannot be read ({error})") from error
    found = found.get("classes") if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise refused("is not a list of names")
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise refused(f"names {twice[0]!r} twice")
    return tuple(found)


def _lines(text: str) -> list[str]:
    """One name a line; of ADE20K's table, the first synonym in the last column."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].split()[:2] == ["Idx", "Ratio"]:
        return [line.split("\t")[-1].split(",")[0].strip() for line in lines[1:]]
    return lines
