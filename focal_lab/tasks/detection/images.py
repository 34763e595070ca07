"""Detections as images in TensorBoard, and as files."""

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
from focal_lab.tasks.image_callbacks import FOUND, TRUE, DisplayOptions, ShowImages, WriteImages

# Objects below this score are not drawn but counted on the image; result files have them all.
DRAWN_FROM = 0.5


class ShowDetections(ShowImages):
    """Validation images with the true objects but crowds, and with those detected with enough confidence."""

    def draw_truth(self, display: DisplayOptions, image_3HW: Tensor, target: Any) -> Tensor:
        return draw(image_3HW, target, display.classes, heading=TRUE)

    def draw_found(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        return draw(image_3HW, found, display.classes, DRAWN_FROM, FOUND)


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

    def draw(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        return draw(image_3HW, found, display.classes, self.drawn_from)

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        assert self.display is not None
        self._results += _results(found, number, name, self.display.classes)
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
