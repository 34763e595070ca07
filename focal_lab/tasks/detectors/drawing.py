"""Boxes and masks drawn over a picture."""

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

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
    if not keep.any():
        return drawn
    colours = [colour(label) for label in chosen["labels"].tolist()]
    if "masks" in chosen:
        drawn = draw_segmentation_masks(drawn, enlarged(chosen["masks"], factor).bool(), 0.5, colours)
    told = [classes.name(label) for label in chosen["labels"].tolist()]
    if "scores" in chosen:
        told = [f"{name} {score:.2f}" for name, score in zip(told, chosen["scores"].tolist(), strict=True)]
    boxes: Tensor = chosen["boxes"].float() * factor
    made: Tensor = draw_bounding_boxes(drawn, boxes, told, colours, width=2, label_colors="white")
    return made
