"""Segmentations as images in TensorBoard, and as files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.image_callbacks import FOUND, TRUE, WriteImages, colour, enlarged, magnification
from focal_lab.tasks.words import HATCHED, Note, readable, text_size, with_notes

_OPACITY = 0.6  # of a class's colour
# Classes that are not coloured: a colour over most of an image hides more than it shows.
_PLAIN = ("background", "null", "none", "void", "other")
_NAMED = 20  # classes in the legend, those with the most pixels
_STRIPES = (64, 192)


def draw_truth(task: Any, image_3HW: Tensor, target: Any) -> Tensor:
    """The true classes, ignored pixels hatched."""
    return overlay(image_3HW, target["mask"], task.classes, ignored=task.ignore_index, heading=TRUE)


def draw_found(task: Any, image_3HW: Tensor, found: Any) -> Tensor:
    """The predicted classes."""
    return overlay(image_3HW, found, task.classes, heading=FOUND)


class WriteSegmentation(WriteImages):
    """`focal-lab predict`: coloured images, and in the folder `masks` the class of each pixel as a PNG.

    Masks have the image's own size and the numbers of the data's own masks (1 to 150 for ADE20K), in 8 bits,
    or 16 where needed.
    """

    def draw(self, task: Any, image_3HW: Tensor, found: Any) -> Tensor:
        return overlay(image_3HW, found, task.classes)

    def keep(self, classes: Classes, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        ids = [classes.category_id(label) for label in range(int(found.max()) + 1)]
        numbers = np.array(ids, np.int64)[found.cpu().numpy()]
        file = folder / "masks" / f"{written}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.astype(np.uint8 if numbers.max() < 256 else np.uint16)).save(file)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = self.folder(trainer)
        rank_zero_info(f"masks: {folder / 'masks'}, images: {folder / 'pictures'}")


def overlay(
    image_3HW: Tensor, label_HW: Tensor, classes: Classes, *, ignored: int | None = None, heading: str = ""
) -> Tensor:
    """Each pixel in the colour of its class, ignored ones hatched, and a legend below.

    Args:
        image_3HW: uint8.
        label_HW: integers; pixels of background are not coloured.
        classes: names of the labels.
        ignored: label of pixels that do not count, beside all labels that are not a class.
        heading: the legend's first word.

    Returns:
        uint8 (3, H, W): the image, enlarged if it is small, and the legend below.
    """
    label_HW = label_HW.detach().cpu().long()
    of_none_HW = label_HW < 0
    if ignored is not None:
        of_none_HW |= label_HW == ignored
    known = len(classes.names) or int(label_HW.where(~of_none_HW, 0).max()) + 1
    of_none_HW |= label_HW >= known
    palette = torch.tensor([colour(label) for label in range(known)])
    plain = [label for label in range(known) if classes.name(label).lower() in _PLAIN]
    coloured_HW = ~of_none_HW & ~torch.isin(label_HW, torch.tensor(plain, dtype=torch.long))
    tint_3HW = palette[label_HW.clamp(0, known - 1)].permute(2, 0, 1)
    mixed_3HW = (image_3HW * (1 - _OPACITY) + tint_3HW * _OPACITY).round().to(torch.uint8)
    factor = magnification(image_3HW)
    drawn_3HW = enlarged(torch.where(coloured_HW, mixed_3HW, image_3HW), factor)
    if of_none_HW.any():
        drawn_3HW = _hatched(drawn_3HW, enlarged(of_none_HW[None], factor)[0].bool())
    counts = torch.bincount(label_HW[~of_none_HW], minlength=known)
    there = [int(label) for label in counts.argsort(descending=True, stable=True) if counts[label]]
    seen = [label for label in there if label not in plain]
    notes = [Note(heading)] if heading else []
    notes += [Note(readable(classes.name(label), label), colour(label)) for label in seen[:_NAMED]]
    notes += [Note(f"and {len(seen) - _NAMED} more classes")] if len(seen) > _NAMED else []
    notes += [Note(f"not coloured: {classes.name(label)}") for label in there if label in plain]
    notes += [Note("ignored", HATCHED, hatched=True)] if of_none_HW.any() else []
    return with_notes(drawn_3HW, notes)


def _hatched(drawn_3HW: Tensor, area_HW: Tensor) -> Tensor:
    """Dark beside light stripes, visible on any image, and the image between them."""
    height, width = area_HW.shape
    stripe = max(2, text_size(height, width) // 4)
    along_HW = torch.arange(height)[:, None] + torch.arange(width)
    drawn_3HW = drawn_3HW.clone()
    for number, grey in enumerate(_STRIPES):
        drawn_3HW[:, area_HW & (along_HW // stripe % 4 == number)] = grey
    return drawn_3HW
