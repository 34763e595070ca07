"""Decodes image files of any kind to RGB, for all data sets, prediction, inspection and export.

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

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BEHIND = 255  # transparent pixels become white
_MOST_16 = 65535
# without a file name, so that each is printed once
_ALMOST_BLACK = (
    "There are images of 32-bit integers that do not exceed 255: they are read as 16-bit images, 0 to 65535, "
    "and are almost black (if they are 8-bit images, save them with 8 bits)"
)
_EITHER_WAY = (
    "There are images that EXIF rotates and whose size is the same either way: they are read upright, and "
    "their annotations are assumed to fit that (if they do not, remove the EXIF data)"
)


def decode(
    encoded: bytes | str | Path, *, upright: bool = True, size: tuple[int, int] | None = None
) -> Image.Image:
    """Decode an image as 8-bit RGB; of several frames the first.

    Args:
        encoded: the file's content or its path.
        upright: follow the EXIF orientation.
        size: width and height of its annotations: an image that has this size only as it is stored is not
            rotated. The result may have another size if neither way fits.

    Raises:
        Exception: for damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error, EOFError
            and more; ValueError for values out of range.
    """
    try:
        image_file = Image.open(BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
    except UnidentifiedImageError as error:  # Pillow's message names the BytesIO object
        length = len(encoded) if isinstance(encoded, bytes) else Path(encoded).stat().st_size
        message = "it is not an image of a known format" if length else "it is empty"
        raise UnidentifiedImageError(message) from error
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
    """Width and height as stored, and as EXIF rotates it."""
    # Pillow rotates TIFFs itself
    sideways = _orientation(opened) >= 5 and opened.format != "TIFF"
    return {opened.size, opened.size[::-1]} if sideways else {opened.size}


def _orientation(opened: Image.Image) -> int:
    """EXIF orientation, 1 for upright."""
    try:
        number = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data do not damage the image
        return 1
    return number if isinstance(number, int) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB: the upper 8 of 16 bits, white for transparent pixels.

    Raises ValueError if 32-bit values are out of range.
    """
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "RGB":
        image.load()
        return image.copy() if image.readonly else image
    return image.convert("RGB")


def load_image(path: str | Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file as upright RGB; `size` is that of `decode`.

    Raises UserError if the file is missing or cannot be decoded.
    """
    try:
        return decode(path, size=size)
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path) from error
    except Exception as error:
        raise UserError(f"cannot be decoded as an image ({error})", file=path) from error


def _on_white(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # a 16-bit PNG: Pillow has kept the upper 8 bits of the pixels, but not of the transparent colour
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (_BEHIND,) * 4), layer).convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16 or 32-bit grey. Pillow's own conversion clips at 255, which makes most images white."""
    values = np.asarray(image).astype(np.float64)
    scaled = np.rint(values * _scale(values, image)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = _BEHIND
    return Image.fromarray(scaled).convert("RGB")


def _scale(values: NDArray[Any], image: Image.Image) -> float:
    """Factor to bytes, by file type alone: otherwise images of one data set would differ in it.

    Raises ValueError if a value is out of range.
    """
    most = 1 if image.mode == "F" else _MOST_16
    # comparisons with NaN are false
    if values.size and not (values.min() >= 0 and values.max() <= most):
        kind = "floating-point images" if image.mode == "F" else "32-bit integer images"
        raise ValueError(
            f"has values from {values.min():g} to {values.max():g}; {kind} can be read from 0 to {most} "
            "(scale it, or save it with 8 bits)"
        )
    # mode I is a 16-bit PGM or a 32-bit TIFF
    if image.mode == "I" and image.format != "PPM" and 0 < values.max(initial=0) <= 255:
        warnings.warn(_ALMOST_BLACK, stacklevel=2)
    return 255 / most
