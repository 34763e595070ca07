"""Boxes and masks drawn over a picture."""

import colorsys
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from focal_lab.tasks.detectors.classes import Classes

# Small pictures are enlarged to about this side, so that labels can be read.
_LEAST_SIDE = 320
# Turns of the colour circle from one class to the next: the golden section keeps neighbours apart.
_TURN = 0.618034


def as_bytes(picture_3HW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A normalised picture as it was, uint8 (3, H, W), on the processor."""
    picture_3HW = picture_3HW.detach().float().cpu()
    mean_3, std_3 = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))
    return ((picture_3HW * std_3 + mean_3) * 255).round().clamp(0, 255).byte()


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
    factor = max(1, math.ceil(_LEAST_SIDE / max(picture_3HW.shape[1:])))
    drawn = _enlarged(picture_3HW, factor)
    if not keep.any():
        return drawn
    colours = [_colour(label) for label in chosen["labels"].tolist()]
    if "masks" in chosen:
        drawn = draw_segmentation_masks(drawn, _enlarged(chosen["masks"], factor).bool(), 0.5, colours)
    told = [classes.name(label) for label in chosen["labels"].tolist()]
    if "scores" in chosen:
        told = [f"{name} {score:.2f}" for name, score in zip(told, chosen["scores"].tolist(), strict=True)]
    boxes: Tensor = chosen["boxes"].float() * factor
    made: Tensor = draw_bounding_boxes(drawn, boxes, told, colours, width=2)
    return made


def beside(left_3HW: Tensor, right_3HW: Tensor) -> Tensor:
    """Two pictures of the same size with a white line between them."""
    line = left_3HW.new_full((3, left_3HW.shape[1], 4), 255)
    return torch.cat((left_3HW, line, right_3HW), 2)


def _enlarged(x_CHW: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return x_CHW
    return F.interpolate(x_CHW[None].float(), scale_factor=factor, mode="nearest")[0].to(torch.uint8)


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * _TURN % 1, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
