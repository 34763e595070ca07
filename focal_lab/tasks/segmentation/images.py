"""Segmentations as images in TensorBoard, and as files."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from focal_lab.tasks.image_callbacks import FOUND, TRUE, DisplayOptions, ShowImages, WriteImages
from focal_lab.tasks.segmentation.drawing import overlay


class ShowSegmentation(ShowImages):
    """Validation images with the true classes, ignored pixels hatched, and with the predicted ones."""

    def draw_truth(self, display: DisplayOptions, image_3HW: Tensor, target: Any) -> Tensor:
        return overlay(image_3HW, target["mask"], display.classes, ignored=display.ignored, heading=TRUE)

    def draw_found(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        return overlay(image_3HW, found, display.classes, heading=FOUND)


class WriteSegmentation(WriteImages):
    """`focal-lab predict`: coloured images, and in the folder `masks` the class of each pixel as a PNG.

    Masks have the image's own size and the numbers of the data's own masks (1 to 150 for ADE20K), in 8 bits,
    or 16 where needed.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        (self.folder(trainer) / "masks").mkdir(exist_ok=True)

    def draw(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        return overlay(image_3HW, found, display.classes)

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        assert self.display is not None
        ids = [self.display.classes.category_id(label) for label in range(int(found.max()) + 1)]
        numbers = np.array(ids, np.int64)[found.cpu().numpy()]
        file = folder / "masks" / f"{written}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.astype(np.uint8 if numbers.max() < 256 else np.uint16)).save(file)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = self.folder(trainer)
        rank_zero_info(f"masks: {folder / 'masks'}, images: {folder / 'pictures'}")
