"""The one decoder: image files of any kind to RGB, for every data set, prediction, inspection and export.

docs/data.md has the rules as a table.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from focal_lab.errors import UserError

_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BEHIND = 255  # what is seen through transparent places: white
_MOST_16 = 65535
# without a name, so that it is printed once
_ALMOST_BLACK = (
    "There are images with whole numbers of 32 bits that do not exceed 255: they are read as those of 16 "
    "bits, 0 to 65535, and are almost black (if they are of 8 bits, save them with 8)"
)
_EITHER_WAY = (
    "There are images that EXIF turns and whose size is the same either way: they are read upright, and "
    "their annotations are taken to be made for that (if they are not, remove the EXIF data)"
)


def decode(
    encoded: bytes | str | Path, *, upright: bool = True, size: tuple[int, int] | None = None
) -> Image.Image:
    """An image as RGB, 8 bits a channel; of several frames the first.

    Args:
        encoded: the file's bytes or its path.
        upright: turn it as EXIF says.
        size: width and height that its annotations were made for: an image that has them only as it is
            stored is not turned. The result may have another size, where neither way fits.

    Raises:
        Exception: depending on format and damage Pillow raises OSError, SyntaxError, ValueError,
            struct.error, EOFError and more; ValueError for values out of range.
    """
    try:
        image_file = Image.open(BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
    except UnidentifiedImageError as error:
        # Pillow names the object that held the bytes
        size_of = len(encoded) if isinstance(encoded, bytes) else Path(encoded).stat().st_size
        raise UnidentifiedImageError(
            "it is not an image of a known format" if size_of else "it is empty"
        ) from error
    with image_file as opened:
        opened.load()  # PNG may have its EXIF data behind the pixels
        turn = _TURNS.get(_orientation(opened)) if upright else None
        image = to_rgb(opened)
    if turn is None:
        return image
    turned = image.transpose(turn)
    if size is not None and image.size == size != turned.size:
        return image
    if image.size == turned.size == size:
        warnings.warn(_EITHER_WAY, stacklevel=2)
    return turned


def possible_sizes(opened: Image.Image) -> set[tuple[int, int]]:
    """Width and height as it is stored, and as EXIF turns it."""
    # Pillow turns TIFFs by itself
    sideways = _orientation(opened) >= 5 and opened.format != "TIFF"
    return {opened.size, opened.size[::-1]} if sideways else {opened.size}


def _orientation(opened: Image.Image) -> int:
    """EXIF's number, 1 for upright."""
    try:
        number = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data keep nobody from seeing an image
        return 1
    return number if isinstance(number, int) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB: 16 bits become their upper 8, transparent places white.

    Raises:
        ValueError: numbers of 32 bits that are out of range.
    """
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "RGB":
        image.load()
        return image.copy() if image.readonly else image
    return image.convert("RGB")


def load_picture(path: str | Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file as RGB, upright.

    Args:
        path: of the file.
        size: see `decode`.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    try:
        return decode(path, size=size)
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path) from error
    except Exception as error:
        raise UserError(f"cannot be decoded as an image ({error})", file=path) from error


def _on_white(image: Image.Image) -> Image.Image:
    seen_through = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(seen_through, tuple) and max(seen_through) > 255:
        # a PNG of 16 bits: Pillow has kept the upper 8 of the pixels, but not of the transparent colour
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in seen_through)
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, (_BEHIND,) * 4), seen).convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits. Pillow's own conversion clips at 255, which makes most of them white."""
    values = np.asarray(image).astype(np.float64)
    scaled = np.rint(values * _scale(values, image)).astype(np.uint8)
    seen_through = image.info.get("transparency")
    if isinstance(seen_through, int):
        scaled[values == seen_through] = _BEHIND
    return Image.fromarray(scaled).convert("RGB")


def _scale(values: NDArray[Any], image: Image.Image) -> float:
    """What makes bytes of the values: by the kind of file, or images of one data set would differ in it.

    Raises:
        ValueError: they are out of the range of their kind.
    """
    most = 1 if image.mode == "F" else _MOST_16
    # comparisons with NaN are false
    if values.size and not (values.min() >= 0 and values.max() <= most):
        kind = "floating point" if image.mode == "F" else "whole numbers of 32 bits"
        raise ValueError(
            f"has values from {values.min():g} to {values.max():g}; {kind} can be read from 0 to {most} "
            "(scale it, or save it with 8 bits)"
        )
    # Pillow's I is a PGM of 16 bits, or a TIFF of 32
    if image.mode == "I" and image.format != "PPM" and 0 < values.max(initial=0) <= 255:
        warnings.warn(_ALMOST_BLACK, stacklevel=2)
    return 255 / most
