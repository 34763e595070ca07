"""Classified images in TensorBoard: the true class and the most likely ones."""

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.image_callbacks import FOUND, TRUE, colour, enlarged, magnification
from focal_lab.tasks.words import Note, readable, with_notes

_LISTED = 5  # classes below an image, the most likely first


def draw_truth(task: Any, image_3HW: Tensor, target: Any) -> Tensor:
    """The image, and its class below."""
    return _listed(image_3HW, [Note(TRUE), _note(task.classes, int(target))])


def draw_found(task: Any, image_3HW: Tensor, found: Any) -> Tensor:
    """The image, and the most likely classes with their probabilities below."""
    probabilities_K = F.softmax(found.detach().float().cpu(), -1)
    top = probabilities_K.topk(min(_LISTED, len(probabilities_K)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return _listed(image_3HW, [Note(FOUND), *(_note(task.classes, label, f" {p:.3f}") for label, p in pairs)])


def _listed(image_3HW: Tensor, notes: list[Note]) -> Tensor:
    return with_notes(enlarged(image_3HW, magnification(image_3HW)), notes)


def _note(classes: Classes, label: int, more: str = "") -> Note:
    return Note(readable(classes.name(label), label) + more, colour(label))
