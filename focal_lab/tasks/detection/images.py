"""Predictions of a detector as pictures in TensorBoard, and as files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.detection.drawing import draw, drawn_from
from focal_lab.tasks.image_callbacks import FOUND, TRUE, Look, ShowPictures, WritePictures

# Objects below this score are not drawn but counted on the image; files of results have them all.
DRAWN_FROM = 0.5


class ShowDetections(ShowPictures):
    """Validation pictures with the objects that are there, and with those that were found."""

    def draw_truth(self, look: Look, picture_3HW: Tensor, target: Any) -> Tensor:
        """All objects but crowds."""
        return draw(picture_3HW, target, look.classes, heading=TRUE)

    def draw_found(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """The objects that the detector is more or less sure of."""
        return draw(picture_3HW, found, look.classes, DRAWN_FROM, FOUND)


class WriteDetections(WritePictures):
    """`focal-lab predict`: COCO's result file, `predictions.json`, and drawn pictures beside it.

    Each result has the image's ID (its file's name where all are different numbers, as COCO's are, else its
    place in the folder), the class as the annotation file's category id, box, score, and the mask as run
    lengths. With several processes each writes a file of its own.

    Args:
        drawn_from: score from which an object is drawn.
    """

    def __init__(self, drawn_from: float = DRAWN_FROM) -> None:
        super().__init__()
        self.drawn_from = drawn_from
        self._results: list[dict[str, Any]] = []
        self._hidden = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is found yet."""
        super().on_predict_start(trainer, pl_module)
        self._results, self._hidden = [], 0

    def draw(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """The objects that the detector is more or less sure of."""
        return draw(picture_3HW, found, look.classes, self.drawn_from)

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        """Results for the file that is written at the end."""
        assert self.look is not None
        self._results += _results(found, number, name, self.look.classes)
        self._hidden += int((~drawn_from(found, self.drawn_from)).sum())

    def notes(self) -> list[str]:
        """How many objects the pictures do not show."""
        if not self._hidden:
            return []
        return [
            f"{self._hidden} of {len(self._results)} objects are not drawn: their score is below "
            f"{self.drawn_from:g} (--min-score; the file of results has them)"
        ]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file of results."""
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder(trainer) / f"predictions{rank}.json"
        path.write_text(json.dumps(self._results), encoding="utf-8")
        rank_zero_info(
            "; ".join([f"predictions: {path}, pictures: {path.parent / 'pictures'}", *self.notes()])
        )


def _results(found: dict[str, Tensor], number: int, name: str, classes: Classes) -> list[dict[str, Any]]:
    """COCO's result format: https://cocodataset.org/#format-results; `file_name` is an addition."""
    made = []
    masks = found["masks"].cpu().numpy().astype(np.uint8) if "masks" in found else None
    for i, (left, top, right, bottom) in enumerate(found["boxes"].tolist()):
        label = int(found["labels"][i])
        entry: dict[str, Any] = {
            "image_id": number,
            "file_name": name,
            "category_id": classes.category_id(label),
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "score": round(float(found["scores"][i]), 5),
        }
        if masks is not None:
            code = rle.encode(np.asfortranarray(masks[i]))
            entry["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        made.append(entry)
    return made
