"""Classes of pixels drawn over a picture."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.pictures import colour, enlarged, magnification

# How much of a pixel is its class's colour.
_OPACITY = 0.6
# Names of classes that stay as they are: a colour over most of a picture hides more than it tells.
_PLAIN = ("background", "null", "none", "void", "other")
# Classes that are told by name, those with the most pixels.
_TOLD = 8


def overlay(picture_3HW: Tensor, label_HW: Tensor, classes: Classes, *, enlarge: bool = True) -> Tensor:
    """Each pixel in the colour of its class, and the names of the most frequent ones.

    Args:
        picture_3HW: uint8.
        label_HW: integers; pixels of background, or of no class, are left as they are.
        classes: what they are called.
        enlarge: whether small pictures are made large enough to read the names.

    Returns:
        uint8 (3, H, W), larger than the picture where that is small and may grow.
    """
    label_HW = label_HW.detach().cpu().long()
    known = max(len(classes.names), 1 if classes.names else int(label_HW.max()) + 1)
    palette = torch.tensor([colour(label) for label in range(known)])
    plain = [label for label in range(known) if classes.name(label).lower() in _PLAIN]
    coloured_HW = (label_HW >= 0) & (label_HW < known)
    for label in plain:
        coloured_HW &= label_HW != label
    tint_3HW = palette[label_HW.clamp(0, known - 1)].permute(2, 0, 1)
    mixed_3HW = (picture_3HW * (1 - _OPACITY) + tint_3HW * _OPACITY).round().to(torch.uint8)
    drawn_3HW = torch.where(coloured_HW, mixed_3HW, picture_3HW)
    drawn_3HW = enlarged(drawn_3HW, magnification(picture_3HW) if enlarge else 1)
    counts = torch.bincount(label_HW[coloured_HW], minlength=known)
    frequent = [int(label) for label in counts.argsort(descending=True)[:_TOLD] if counts[label]]
    return _with_names(drawn_3HW, [(classes.name(label), colour(label)) for label in frequent])


def _with_names(picture_3HW: Tensor, names: list[tuple[str, tuple[int, int, int]]]) -> Tensor:
    """Names in their colours, in the upper left corner."""
    image = Image.fromarray(np.ascontiguousarray(picture_3HW.permute(1, 2, 0).numpy()))
    drawing, font = ImageDraw.Draw(image), ImageFont.load_default(size=min(20, max(10, image.height // 24)))
    top = 2
    for name, shade in names:
        box = drawing.textbbox((4, top), name, font=font)
        if box[3] + 2 > image.height:
            break
        drawing.rectangle((2, top, box[2] + 2, box[3] + 2), fill="black")
        drawing.text((4, top), name, fill=shade, font=font)
        top = int(box[3]) + 3
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
