"""Predictions of a detector as pictures in TensorBoard, and as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision.io import write_png

from focal_lab.tasks.detectors.classes import Classes
from focal_lab.tasks.detectors.drawing import as_bytes, beside, draw

# Objects below this score are not drawn; files of results have them all.
DRAWN_FROM = 0.5
# Validation pictures in TensorBoard, the first of the set.
SHOWN = 8


class ShowDetections(Callback):
    """Validation pictures in TensorBoard: on the left what is there, on the right what was found."""

    def __init__(self) -> None:
        self._shown = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the first picture."""
        self._shown = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw pictures of the batch until there are enough."""
        logger = trainer.logger
        if self._shown >= SHOWN or not isinstance(logger, TensorBoardLogger):
            return
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        look = _Look(trainer, pl_module)
        for picture, target, found in list(zip(*batch, outputs["found"], strict=True))[: SHOWN - self._shown]:
            pixels = as_bytes(picture, look.mean, look.std)
            drawn = beside(draw(pixels, target, look.classes), draw(pixels, found, look.classes, DRAWN_FROM))
            logger.experiment.add_image(f"val/picture_{self._shown}", drawn, trainer.global_step)
            self._shown += 1


class WriteDetections(BasePredictionWriter):
    """`focal-lab predict`: COCO's result file, `predictions.json`, and drawn pictures beside it.

    Each result has the picture's id (its file's name where that is a number, as COCO's are, else its place in
    the folder), the class as the annotation file's category id, box, score, and the mask as run lengths. With
    several processes each writes a file of its own.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._results: list[dict[str, Any]] = []
        self._look: _Look | None = None
        self._files: Sequence[Path] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is found yet."""
        self._results = []
        self._look = _Look(trainer, pl_module)
        self._files = getattr(getattr(trainer, "datamodule", None), "predict_files", None)
        (_folder(trainer) / "pictures").mkdir(parents=True, exist_ok=True)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Draw the pictures of one batch and keep what was found in them."""
        look, folder = self._look, _folder(trainer) / "pictures"
        assert look is not None
        for picture, target, found in zip(*batch, prediction, strict=True):
            number = int(target["image_id"])
            file = self._files[number] if self._files else None
            name = file.name if file else str(number)
            if file and file.stem.isdecimal():
                number = int(file.stem)
            drawn = draw(as_bytes(picture, look.mean, look.std), found, look.classes, DRAWN_FROM)
            write_png(drawn, str(folder / f"{name}.png"))
            self._results += _results(found, number, name, look.classes)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file of results."""
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = _folder(trainer) / f"predictions{rank}.json"
        path.write_text(json.dumps(self._results), encoding="utf-8")
        rank_zero_info(f"predictions: {path}, pictures: {path.parent / 'pictures'}")


class _Look:
    """How to show the pictures of a data module."""

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        self.mean: Sequence[float] = getattr(data, "mean", (0.0, 0.0, 0.0))
        self.std: Sequence[float] = getattr(data, "std", (1.0, 1.0, 1.0))
        self.classes: Classes = getattr(module, "classes", Classes())


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir)


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
