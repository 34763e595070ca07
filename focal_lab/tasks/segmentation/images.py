"""Predictions of a segmentation as pictures in TensorBoard, and as files."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from focal_lab.tasks.image_callbacks import FOUND, TRUE, Look, ShowPictures, WritePictures
from focal_lab.tasks.segmentation.drawing import overlay


class ShowSegmentation(ShowPictures):
    """Validation pictures with the classes that are there, and with those that were found."""

    def draw_truth(self, look: Look, picture_3HW: Tensor, target: Any) -> Tensor:
        """The true classes; pixels to ignore are hatched."""
        return overlay(picture_3HW, target["mask"], look.classes, ignored=look.ignored, heading=TRUE)

    def draw_found(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """The classes that were found."""
        return overlay(picture_3HW, found, look.classes, heading=FOUND)


class WriteSegmentation(WritePictures):
    """`focal-lab predict`: coloured pictures, and in the folder `masks` the class of each pixel as a PNG.

    Masks have the picture's own size and the numbers that the data's own masks have (1 to 150 for ADE20K), in
    8 bits, or 16 where 8 are too few.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder of the masks."""
        super().on_predict_start(trainer, pl_module)
        (self.folder(trainer) / "masks").mkdir(exist_ok=True)

    def draw(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """The picture, its classes in colour."""
        return overlay(picture_3HW, found, look.classes)

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        """Write the mask."""
        assert self.look is not None
        numbers = np.array(
            [self.look.classes.category_id(label) for label in range(int(found.max()) + 1)], np.int64
        )[found.cpu().numpy()]
        kind = np.uint8 if numbers.max() < 256 else np.uint16
        file = folder / "masks" / f"{written}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.astype(kind)).save(file)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where everything is."""
        folder = self.folder(trainer)
        rank_zero_info(f"masks: {folder / 'masks'}, pictures: {folder / 'pictures'}")
