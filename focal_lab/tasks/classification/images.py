"""Classified images: in TensorBoard with the true class and the most likely ones, and predictions as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch.nn.functional as F  # noqa: N812
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
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


class WritePredictions(BasePredictionWriter):
    """`focal-lab predict --config`: CSV rows of each image's most likely classes.

    The file is `predictions.csv` in the trainer's log folder; with several processes each writes the images
    it saw, by their `index`.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._stream: TextIO | None = None
        self._classes = Classes()
        self._files: Sequence[Path] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        # the checkpoint's: the data may have none, or others
        classes = getattr(pl_module, "classes", Classes())
        self._classes = classes if classes.names else Classes.of(data)
        self._files = getattr(data, "predict_files", None)
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.log_dir or trainer.default_root_dir) / f"predictions{rank}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115  (closed in on_predict_end)
        csv.writer(self._stream).writerow(["index", "file", "rank", "class", "probability"])

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
        if self._stream is None or not isinstance(prediction, Mapping) or "classes" not in prediction:
            return
        # a batch has a black image in place of an unreadable one
        unreadable = getattr(
            getattr(getattr(trainer, "predict_dataloaders", None), "dataset", None), "unreadable", ()
        )
        rows = csv.writer(self._stream)
        chosen = zip(prediction["classes"].tolist(), prediction["probabilities"].tolist(), strict=True)
        for index, (classes, probabilities) in zip(batch_indices or [], chosen, strict=True):
            file = self._files[index] if self._files else ""
            if index in unreadable:
                rows.writerow([index, file, "", "unreadable", ""])
                continue
            for rank, (label, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
                rows.writerow([index, file, rank, self._classes.name(label), f"{probability:.4f}"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stream is not None:
            self._stream.close()
            rank_zero_info(f"predictions: {self._stream.name}")
            self._stream = None
