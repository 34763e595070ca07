"""Text on drawn images: labels on plates, and notes and legends in a strip below."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
WHITE, INK, HATCHED = (255, 255, 255), (24, 24, 24), (128, 128, 128)
_LONGEST = 32
_SMALLEST, _LARGEST, _PART = 12, 48, 50  # size of letters, px; a 50th of the image's mean side


class Note(NamedTuple):
    """A word in the strip below an image, and the colour of a patch before it, which may be hatched."""

    word: str
    shade: Colour | None = None
    hatched: bool = False


@lru_cache
def font(size: int) -> Any:
    """Matplotlib's, which has European letters; Pillow's own has English ones, and is unpacked each time."""
    import matplotlib  # takes a tenth of a second, and is only needed where something is drawn

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


@lru_cache(4096)
def _has(letter: str) -> bool:
    """Whether the font has a letter; it draws a box for all that it lacks."""
    return letter.isspace() or bytes(font(16).getmask(letter)) != bytes(font(16).getmask("\U0010ffff"))


def readable(name: str, number: int) -> str:
    """A class's name, truncated; its number if the font lacks a letter of it."""
    name = name if all(map(_has, name)) else f"class {number}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def text_size(height: int, width: int) -> int:
    """Size of letters that are readable when the whole image is viewed."""
    return max(_SMALLEST, min(_LARGEST, round(math.sqrt(height * width) / _PART)))


def ink_on(shade: Colour) -> Colour:
    """Black or white, whichever has more contrast."""
    red, green, blue = shade
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else WHITE


def as_image(image_3HW: Tensor) -> Image.Image:
    """uint8 (3, H, W) for Pillow to draw on."""
    return Image.fromarray(np.ascontiguousarray(image_3HW.permute(1, 2, 0).numpy()))


def as_tensor(image: Image.Image) -> Tensor:
    """A drawn image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def boxed(
    image: Image.Image, boxes: Sequence[Sequence[float]], words: Sequence[str], shades: Sequence[Colour]
) -> None:
    """Draw boxes, the first on top, and their words on plates of the same colour inside the image.

    A plate is above its box or, where it would cover another plate or leave the image, within or below it.
    """
    size = text_size(image.height, image.width)
    pen, letters, line = ImageDraw.Draw(image), font(size), max(2, size // 6)
    taken: list[tuple[float, float, float, float]] = []
    for (left, top, right, bottom), shade in reversed(list(zip(boxes, shades, strict=True))):
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=shade, width=line)
    for (left, top, _, bottom), word, shade in zip(boxes, words, shades, strict=True):
        wide, high = pen.textlength(word, letters) + 6, size + 4
        x = max(0.0, min(left, image.width - wide))
        tops = (top - high, top, bottom, bottom - high, top + high, top + 2 * high, top + 3 * high)
        plates = [(x, y, x + wide, y + high) for y in tops]
        inside = [plate for plate in plates if plate[1] >= 0 and plate[3] <= image.height] or [plates[1]]
        free = (plate for plate in inside if not any(_overlap(plate, other) for other in taken))
        plate = next(free, inside[0])
        taken.append(plate)
        pen.rectangle(plate, shade)
        pen.text((plate[0] + 3, plate[1] + 1), word, ink_on(shade), letters)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def with_notes(image_3HW: Tensor, notes: Sequence[Note]) -> Tensor:
    """An image with a strip of words below it, which makes it higher, and a very narrow one wider."""
    if not notes:
        return image_3HW
    image = as_image(image_3HW)
    size = text_size(image.height, image.width)
    letters, high = font(size), round(1.5 * size)
    patches = [round(1.2 * size) if note.shade else 0 for note in notes]
    wide = [patch + round(letters.getlength(note.word)) for patch, note in zip(patches, notes, strict=True)]
    width = max(image.width, max(wide) + size)
    corners, x, y = [], size // 2, 0
    for each in wide:
        if x + each > width - size // 2 and x > size // 2:
            x, y = size // 2, y + high
        corners.append((x, image.height + y))
        x += each + size
    sheet = Image.new("RGB", (width, image.height + y + high), WHITE)
    sheet.paste(image)
    pen = ImageDraw.Draw(sheet)
    for note, patch, (left, top) in zip(notes, patches, corners, strict=True):
        if note.shade:
            area = (left, top + size // 4, left + size - 1, top + size // 4 + size - 1)
            pen.rectangle(area, note.shade, outline=INK)
            if note.hatched:
                pen.line((area[0], area[3], area[2], area[1]), WHITE, max(1, size // 4))
        pen.text((left + patch, top + size // 6), note.word, INK, letters)
    return as_tensor(sheet)
