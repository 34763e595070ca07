"""Detections as images in TensorBoard, and as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.image_callbacks import FOUND, TRUE, WriteImages, colour, enlarged, magnification
from focal_lab.tasks.words import Colour, Note, as_image, as_tensor, boxed, readable, with_notes

# Objects below this score are not drawn but counted on the image; result files have them all.
DRAWN_FROM = 0.5


def draw_truth(task: Any, image_3HW: Tensor, target: Any) -> Tensor:
    """The true objects but crowds."""
    return draw(image_3HW, target, task.classes, heading=TRUE)


def draw_found(task: Any, image_3HW: Tensor, found: Any) -> Tensor:
    """The objects detected with enough confidence."""
    return draw(image_3HW, found, task.classes, DRAWN_FROM, FOUND)


class WriteDetections(WriteImages):
    """`focal-lab predict`: COCO's result file, `predictions.json`, and drawn images beside it.

    Each result has the image's ID (its file's name if all are different numbers, as COCO's are, else its
    index), the class as the annotation file's category id, box, score, and the mask as run lengths. With
    several processes each writes its own file.

    Args:
        drawn_from: score from which an object is drawn.
    """

    def __init__(self, drawn_from: float = DRAWN_FROM) -> None:
        super().__init__()
        self.drawn_from = drawn_from
        self._results: list[dict[str, Any]] = []
        self._hidden = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        self._results, self._hidden = [], 0

    def draw(self, task: Any, image_3HW: Tensor, found: Any) -> Tensor:
        return draw(image_3HW, found, task.classes, self.drawn_from)

    def keep(self, classes: Classes, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        self._results += _results(found, number, name, classes)
        self._hidden += int((~drawn_from(found, self.drawn_from)).sum())

    def notes(self) -> list[str]:
        """How many objects are not drawn."""
        if not self._hidden:
            return []
        return [
            f"{self._hidden} of {len(self._results)} objects are not drawn: their score is below "
            f"{self.drawn_from:g} (--min-score; the file of results has them)"
        ]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder(trainer) / f"predictions{rank}.json"
        path.write_text(json.dumps(self._results), encoding="utf-8")
        written = f"predictions: {path}, images: {path.parent / 'pictures'}"
        rank_zero_info("; ".join([written, *self.notes()]))


def _results(found: dict[str, Tensor], number: int, name: str, classes: Classes) -> list[dict[str, Any]]:
    """COCO's result format (https://cocodataset.org/#format-results), and `file_name`."""
    results = []
    masks = found["masks"].cpu().numpy().astype(np.uint8) if "masks" in found else None
    for i, (left, top, right, bottom) in enumerate(found["boxes"].tolist()):
        result: dict[str, Any] = {
            "image_id": number,
            "file_name": name,
            "category_id": classes.category_id(int(found["labels"][i])),
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "score": round(float(found["scores"][i]), 5),
        }
        if masks is not None:
            code = rle.encode(np.asfortranarray(masks[i]))
            result["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        results.append(result)
    return results


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
