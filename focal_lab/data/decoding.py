"""Encoded pictures to RGB: grey, CMYK, palettes, transparency, 16 bits, turned by EXIF."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from focal_lab.errors import UserError

_ORIENTATION = 0x0112  # EXIF's tag
_BEHIND = "white"  # what is seen through transparent places


def decode(encoded: bytes | str | Path, *, upright: bool = True) -> Image.Image:
    """A picture as RGB, 8 bits a channel.

    Args:
        encoded: the file's bytes or its path.
        upright: turn it as EXIF says.

    Raises:
        Exception: depending on format and damage Pillow raises OSError, SyntaxError, ValueError,
            struct.error, EOFError and more.
    """
    with Image.open(BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
        # most files have no EXIF; then nothing is parsed
        turned = upright and "exif" in opened.info and opened.getexif().get(_ORIENTATION, 1) != 1
        picture = to_rgb(opened)
        if turned:
            picture.info["exif"] = opened.info["exif"]
            picture = ImageOps.exif_transpose(picture)
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB; 16 bits become their upper 8, and transparent places white."""
    if picture.mode.startswith(("I", "F")):
        return _from_deep(picture)
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        below = Image.new("RGBA", seen.size, _BEHIND)
        return Image.alpha_composite(below, seen).convert("RGB")
    if picture.mode == "RGB":
        picture.load()
        return picture.copy() if picture.readonly else picture
    return picture.convert("RGB")


def load_picture(path: str | Path) -> Image.Image:
    """Decode a picture file as RGB, upright.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    try:
        return decode(path)
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path) from error
    except Exception as error:
        raise UserError(f"cannot be decoded as a picture ({error})", file=path) from error


def _from_deep(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits. Pillow's own conversion clips at 255, which makes most of them white."""
    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F":
        # floating point has no agreed range: 0 to 1, or that of bytes
        values = values * 255 if values.size and values.max() <= 1 else values
    elif picture.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).convert("RGB")
