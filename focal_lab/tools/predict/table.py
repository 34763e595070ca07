"""The table of `focal-lab predict` for a classification, and the speed of predictions.

Shape suffixes: B batch, C channels, H W image, K classes.
"""

import csv
from typing import Any, TextIO

from lightning import Callback, LightningModule
from torch import Tensor, nn

from focal_lab.tasks.classes import Classes
from focal_lab.tools.predict.images import NamedImages, Squares
from focal_lab.tools.profile.measure import now


class TopClasses(LightningModule):
    """A classifier that predicts the `top` most likely classes.

    Args:
        network: images (B, C, H, W) to logits (B, K).
        top: how many classes.
    """

    def __init__(self, network: nn.Module, top: int) -> None:
        super().__init__()
        self.network, self.top = network, top

    def predict_step(self, batch: Squares, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Probabilities and labels, (B, top) each, the most likely first."""
        images_BCHW = batch[0]
        if len(images_BCHW) == 0:  # none of the batch could be read
            return images_BCHW, images_BCHW
        top = self.network(images_BCHW).float().softmax(-1).topk(self.top)
        return top.values, top.indices


class WriteTable(Callback):
    """Writes a row for each of an image's most likely classes, or one that says why it is unreadable."""

    def __init__(self, stream: TextIO, images: NamedImages, classes: Classes) -> None:
        self.stream, self.images, self.classes = stream, images, classes
        self.rows = csv.writer(stream, lineterminator="\n")
        self.rows.writerow(("index", "file", "rank", "class", "probability"))

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Append the rows of one batch, in the order of the images."""
        _, read, requested = batch
        predicted = dict(zip(read, zip(*(output.tolist() for output in outputs), strict=True), strict=True))
        for number in requested:
            file = self.images.predict_files[number]
            if number not in predicted:
                reason = f"unreadable: {self.images.why_unreadable(number)}"
                self.rows.writerow([number, file, "", reason, ""])
                continue
            for rank, (probability, label) in enumerate(zip(*predicted[number], strict=True), 1):
                self.rows.writerow([number, file, rank, self.classes.name(label), f"{probability:.4f}"])
        self.stream.flush()


class PredictionTimer(Callback):
    """Notes which images were predicted, and how long it took.

    Attributes:
        read: numbers of the images that could be read.
        network_seconds: from each batch on the device to its predictions, including post-processing.
    """

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.network_seconds = self._batch_start = 0.0

    def on_predict_batch_start(self, *_: Any) -> None:
        self._batch_start = now()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.network_seconds += now() - self._batch_start
        self.read.update(int(entry["image_id"]) if isinstance(entry, dict) else entry for entry in batch[1])
