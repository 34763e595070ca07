"""Boxes and masks drawn over an image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.image_callbacks import colour, enlarged, magnification
from focal_lab.tasks.words import Colour, Note, as_image, as_tensor, boxed, readable, with_notes


def draw(
    image_3HW: Tensor, found: dict[str, Tensor], classes: Classes, threshold: float = 0.0, heading: str = ""
) -> Tensor:
    """The objects of an image, each in the colour of its class, and a note of what is not drawn.

    Args:
        image_3HW: uint8.
        found: boxes and labels, and perhaps masks, scores, and crowds (which are left out).
        classes: names of the labels.
        threshold: score from which an object is drawn.
        heading: the first word below the image.

    Returns:
        uint8 (3, H, W): the image, enlarged if it is small, and a strip of words below.
    """
    keep = drawn_from(found, threshold)
    notes = [Note(heading)] if heading else []
    if "scores" in found and (threshold > 0 or not keep.all()):
        notes.append(Note(f"score {threshold:g} or more"))
        notes.append(Note(f"{int((~keep).sum())} of {len(keep)} objects below not drawn"))
    elif not keep.all():
        notes.append(Note(f"{int((~keep).sum())} crowds not drawn"))
    chosen = {name: value.detach().cpu()[keep] for name, value in found.items() if value.dim()}
    factor = magnification(image_3HW)
    drawn = enlarged(image_3HW, factor)
    if not keep.any():
        return with_notes(drawn, notes)
    labels = chosen["labels"].tolist()
    colours = [colour(label) for label in labels]
    if "masks" in chosen:
        drawn = _tinted(drawn, enlarged(chosen["masks"], factor).bool(), colours)
    words = [readable(classes.name(label), label) for label in labels]
    if "scores" in chosen:
        words = [f"{word} {score:.2f}" for word, score in zip(words, chosen["scores"].tolist(), strict=True)]
    image = as_image(drawn)
    boxed(image, (chosen["boxes"].float() * factor).tolist(), words, colours)
    return with_notes(as_tensor(image), notes)


def drawn_from(found: dict[str, Tensor], threshold: float) -> Tensor:
    """Which objects are drawn, bool: those that reach the score and are not crowds."""
    keep = torch.ones(len(found["labels"]), dtype=torch.bool)
    if "scores" in found:
        keep &= found["scores"].detach().cpu() >= threshold
    if "iscrowd" in found:
        keep &= found["iscrowd"].cpu() == 0
    return keep


def _tinted(drawn_3HW: Tensor, masks_NHW: Tensor, colours: Sequence[Colour]) -> Tensor:
    """Half of each pixel in the colour of the smallest mask over it; torchvision draws overlaps black."""
    tint_3HW = drawn_3HW.clone()
    for number in masks_NHW.flatten(1).sum(1).argsort(descending=True).tolist():
        tint_3HW[:, masks_NHW[number]] = torch.tensor(colours[number], dtype=torch.uint8)[:, None]
    mixed_3HW = (drawn_3HW * 0.5 + tint_3HW * 0.5).round().to(torch.uint8)
    return torch.where(masks_NHW.any(0), mixed_3HW, drawn_3HW)
