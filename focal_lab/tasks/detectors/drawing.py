"""Boxes and masks drawn over a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.pictures import colour, enlarged, magnification


def draw(picture_3HW: Tensor, found: dict[str, Tensor], classes: Classes, threshold: float = 0.0) -> Tensor:
    """The objects of a picture, each in the colour of its class.

    Args:
        picture_3HW: uint8.
        found: boxes and labels, and perhaps masks, scores, and crowds (which are left out).
        classes: what they are called.
        threshold: score from which an object is drawn.

    Returns:
        uint8 (3, H, W), larger than the picture where that is small.
    """
    keep = torch.ones(len(found["labels"]), dtype=torch.bool)
    if "scores" in found:
        keep &= found["scores"].detach().cpu() >= threshold
    if "iscrowd" in found:
        keep &= found["iscrowd"].cpu() == 0
    chosen = {name: value.detach().cpu()[keep] for name, value in found.items() if value.dim()}
    factor = magnification(picture_3HW)
    drawn = enlarged(picture_3HW, factor)
    hidden = len(keep) - int(keep.sum()) if "scores" in found else 0
    if not keep.any():
        return _with_note(drawn, hidden, threshold)
    colours = [colour(label) for label in chosen["labels"].tolist()]
    if "masks" in chosen:
        drawn = _tinted(drawn, enlarged(chosen["masks"], factor).bool(), colours)
    told = [classes.name(label) for label in chosen["labels"].tolist()]
    if "scores" in chosen:
        told = [f"{name} {score:.2f}" for name, score in zip(told, chosen["scores"].tolist(), strict=True)]
    boxes: Tensor = chosen["boxes"].float() * factor
    made: Tensor = draw_bounding_boxes(drawn, boxes, told, colours, width=2, label_colors="white")
    return _with_note(made, hidden, threshold)


def _tinted(drawn_3HW: Tensor, masks_NHW: Tensor, colours: Sequence[tuple[int, int, int]]) -> Tensor:
    """Half of each pixel in the colour of the smallest mask over it: torchvision draws overlaps black."""
    tint_3HW = drawn_3HW.clone()
    for place in masks_NHW.flatten(1).sum(1).argsort(descending=True).tolist():
        colour_31 = torch.tensor(colours[place], dtype=torch.uint8)[:, None]
        tint_3HW[:, masks_NHW[place]] = colour_31
    return torch.where(
        masks_NHW.any(0), (drawn_3HW * 0.5 + tint_3HW * 0.5).round().to(torch.uint8), drawn_3HW
    )


def _with_note(drawn_3HW: Tensor, hidden: int, threshold: float) -> Tensor:
    """A line at the bottom on how many objects are not drawn."""
    if not hidden:
        return drawn_3HW
    image = Image.fromarray(np.ascontiguousarray(drawn_3HW.permute(1, 2, 0).numpy()))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    word = f"{hidden} below {threshold:g} not drawn"
    top = image.height - 16
    pen.rectangle((0, top, pen.textlength(word, font) + 6, image.height), fill="black")
    pen.text((3, top + 1), word, fill="white", font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
