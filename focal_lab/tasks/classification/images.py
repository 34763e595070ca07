"""Classified images: in TensorBoard with the true class and the most likely ones, and predictions as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch.nn.functional as F  # noqa: N812
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image, ImageDraw
from torch import Tensor

from focal_lab.tasks.image_callbacks import DisplayOptions, ShowImages, colour, enlarged, magnification
from focal_lab.tasks.words import as_image, as_tensor, font, readable

_LISTED = 5  # classes beside an image, the most likely first
_SIDE = 160  # small images are enlarged to about this side
_PAPER, _INK, _EMPTY = (255, 255, 255), (32, 32, 32), (225, 225, 225)
_LONGEST = 18


class ShowClasses(ShowImages):
    """Validation images with their class, and the most likely classes as bars, each in its class's colour."""

    def draw_truth(self, display: DisplayOptions, image_3HW: Tensor, target: Any) -> Tensor:
        """The image, and its class on top of it."""
        label = int(target)
        drawn = as_image(enlarged(image_3HW, magnification(image_3HW, _SIDE)))
        size = _text_size(drawn)
        pen, letters = ImageDraw.Draw(drawn), font(size)
        word = f"true: {readable(display.classes.name(label), label, _LONGEST)}"
        pen.rectangle((0, 0, pen.textlength(word, letters) + 1.2 * size, 1.6 * size), _PAPER)
        pen.rectangle((0, 0, 0.4 * size, 1.6 * size), colour(label))
        pen.text((0.8 * size, 0.2 * size), word, _INK, letters)
        return as_tensor(drawn)

    def draw_found(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        """The most likely classes and their probabilities on a sheet of the image's size."""
        image_3HW = enlarged(image_3HW, magnification(image_3HW, _SIDE))
        sheet = Image.new("RGB", (image_3HW.shape[2], image_3HW.shape[1]), _PAPER)
        size = _text_size(sheet)
        pen, letters = ImageDraw.Draw(sheet), font(size)
        probabilities_K = F.softmax(found.detach().float().cpu(), -1)
        top = probabilities_K.topk(min(_LISTED, len(probabilities_K)))
        height, margin = sheet.height / _LISTED, size / 2
        for row, (label, share) in enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True)):
            above, full = row * height, sheet.width - 2 * margin
            word = f"{readable(display.classes.name(label), label, _LONGEST)}  {share:.3f}"
            pen.text((margin, above + 0.1 * height), word, _INK, letters)
            low, high = above + 0.1 * height + 1.3 * size, above + 0.92 * height
            if high > low:
                pen.rectangle((margin, low, margin + full, high), _EMPTY)
                pen.rectangle((margin, low, margin + max(1.0, share * full), high), colour(label))
        return as_tensor(sheet)


class WritePredictions(BasePredictionWriter):
    """`focal-lab predict --config`: CSV rows of each image's most likely classes.

    The file is `predictions.csv` in the trainer's log folder; with several processes each writes the images
    it saw, by their `index`.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._stream: TextIO | None = None
        self._names: Sequence[str] | None = None
        self._files: Sequence[Path] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        # the checkpoint's: the data may have none, or others
        classes = getattr(pl_module, "classes", None)
        self._names = (classes and classes.names) or getattr(data, "class_names", None)
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
        names, files = self._names, self._files
        # a batch has a black image in place of an unreadable one
        unreadable = getattr(
            getattr(getattr(trainer, "predict_dataloaders", None), "dataset", None), "unreadable", ()
        )
        rows = csv.writer(self._stream)
        chosen = zip(prediction["classes"].tolist(), prediction["probabilities"].tolist(), strict=True)
        for index, (classes, probabilities) in zip(batch_indices or [], chosen, strict=True):
            file = files[index] if files else ""
            if index in unreadable:
                rows.writerow([index, file, "", "unreadable", ""])
                continue
            for rank, (label, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
                name = names[label] if names and label < len(names) else label
                rows.writerow([index, file, rank, name, f"{probability:.4f}"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stream is not None:
            self._stream.close()
            rank_zero_info(f"predictions: {self._stream.name}")
            self._stream = None


def _text_size(image: Image.Image) -> int:
    """Pixels, so that each row of the list has room for its words and its bar."""
    return max(8, min(22, round(image.height / (2.6 * _LISTED))))
