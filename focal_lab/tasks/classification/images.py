"""Classified pictures in TensorBoard: what each shows, and what it was taken for.

Shape suffixes: H W height and width, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageDraw
from torch import Tensor

from focal_lab.tasks.image_callbacks import Look, ShowPictures, colour, enlarged, magnification
from focal_lab.tasks.words import font, readable

# Classes in the list beside a picture, the likeliest first.
_LISTED = 5
# Small pictures are enlarged to about this side; nothing is drawn into them that would need more.
_SIDE = 160
_PAPER, _INK, _EMPTY = (255, 255, 255), (32, 32, 32), (225, 225, 225)
_LONGEST = 18


class ShowClasses(ShowPictures):
    """Validation pictures with their class, and the likeliest classes as bars, each in its class's colour."""

    def draw_truth(self, look: Look, picture_3HW: Tensor, target: Any) -> Tensor:
        """The picture, and its class on top of it."""
        label = int(target)
        drawn = _image(enlarged(picture_3HW, magnification(picture_3HW, _SIDE)))
        size = _text_size(drawn)
        pen = ImageDraw.Draw(drawn)
        word = f"true: {readable(look.classes.name(label), label, _LONGEST)}"
        letters = font(size)
        pen.rectangle((0, 0, pen.textlength(word, letters) + 1.2 * size, 1.6 * size), _PAPER)
        pen.rectangle((0, 0, 0.4 * size, 1.6 * size), colour(label))
        pen.text((0.8 * size, 0.2 * size), word, _INK, letters)
        return _tensor(drawn)

    def draw_found(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """The likeliest classes and their probabilities on a sheet of the picture's size."""
        picture_3HW = enlarged(picture_3HW, magnification(picture_3HW, _SIDE))
        sheet = Image.new("RGB", (picture_3HW.shape[2], picture_3HW.shape[1]), _PAPER)
        size = _text_size(sheet)
        pen, letters = ImageDraw.Draw(sheet), font(size)
        probabilities_K = F.softmax(found.detach().float().cpu(), -1)
        top = probabilities_K.topk(min(_LISTED, len(probabilities_K)))
        height, margin = sheet.height / _LISTED, size / 2
        for place, (label, share) in enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True)):
            above, full = place * height, sheet.width - 2 * margin
            word = f"{readable(look.classes.name(label), label, _LONGEST)}  {share:.3f}"
            pen.text((margin, above + 0.1 * height), word, _INK, letters)
            low, high = above + 0.1 * height + 1.3 * size, above + 0.92 * height
            if high > low:
                pen.rectangle((margin, low, margin + full, high), _EMPTY)
                pen.rectangle((margin, low, margin + max(1.0, share * full), high), colour(label))
        return _tensor(sheet)


def _text_size(image: Image.Image) -> int:
    """Pixels, so that each row of the list has room for its words and its bar."""
    return max(8, min(22, round(image.height / (2.6 * _LISTED))))


def _image(picture_3HW: Tensor) -> Image.Image:
    return Image.fromarray(picture_3HW.permute(1, 2, 0).contiguous().numpy())


def _tensor(image: Image.Image) -> Tensor:
    width, height = image.size
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(height, width, 3).permute(2, 0, 1)
