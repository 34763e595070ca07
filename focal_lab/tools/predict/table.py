"""The table of `focal-lab predict`, and how fast it was made.

Shape suffixes: B batch, C channels, H W picture, K classes.
"""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from focal_lab.errors import UserError
from focal_lab.tasks.class_names import Classes
from focal_lab.tools.predict.images import Squares
from focal_lab.tools.trained.preprocessing import Preprocessing

# As `focal_lab.training.callbacks.WritePredictions` has them; its other way in is `predict --config`.
COLUMNS = ("index", "file", "rank", "class", "probability")


class TopClasses(LightningModule):
    """A classifier that answers with its likeliest classes.

    Args:
        network: pictures (B, C, H, W) to logits (B, K).
        top: how many classes.
    """

    def __init__(self, network: nn.Module, top: int) -> None:
        super().__init__()
        self.network, self.top = network, top

    def predict_step(self, batch: Squares, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Probabilities and labels, (B, top) each, the likeliest first."""
        pictures_BCHW = batch[0]
        if len(pictures_BCHW) == 0:  # none of the batch could be read
            return pictures_BCHW, pictures_BCHW
        top = self.network(pictures_BCHW).float().softmax(-1).topk(self.top)
        return top.values, top.indices


class WriteTable(Callback):
    """A row for each of a picture's likeliest classes; one that says so for a picture that cannot be read.

    Args:
        stream: where the rows go.
        files: the pictures.
        shown: what is done to them.
        classes: their names.
    """

    def __init__(self, stream: TextIO, files: Sequence[Path], shown: Preprocessing, classes: Classes) -> None:
        self.stream, self.files, self.shown, self.classes = stream, files, shown, classes
        self.rows = csv.writer(stream, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the rows of one batch, in the order of the pictures."""
        _, read, asked = batch
        probabilities, labels = (answer.tolist() for answer in outputs)
        found = {number: (p, k) for number, p, k in zip(read, probabilities, labels, strict=True)}
        for number in asked:
            file = self.files[number]
            if number not in found:
                self.rows.writerow([number, file, "", f"unreadable: {why_unreadable(file, self.shown)}", ""])
                continue
            for rank, (probability, label) in enumerate(zip(*found[number], strict=True), 1):
                self.rows.writerow([number, file, rank, self.classes.name(label), f"{probability:.4f}"])
        self.stream.flush()


class Throughput(Callback):
    """How many pictures were predicted, and how long the network alone was busy with them.

    Attributes:
        read: numbers of the pictures that could be read.
        network_seconds: from a batch on the device to its answer, post-processing included; reading, moving
            and writing are not.
    """

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.network_seconds = 0.0
        self._begun = 0.0

    def on_predict_batch_start(self, *_: Any) -> None:
        """The batch is on the device."""
        self._begun = _now()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """The answer is there."""
        self.network_seconds += _now() - self._begun
        self.read.update(int(entry["image_id"]) if isinstance(entry, dict) else entry for entry in batch[1])


def why_unreadable(file: Path, shown: Preprocessing) -> str:
    """What is wrong with a picture; it is read again, because workers only say that something is."""
    try:
        shown.read(file)
    except UserError as error:
        return " ".join(error.message.split())
    return "cannot be read every time"


def _now() -> float:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()  # a device works on when the call returns
    return time.perf_counter()
