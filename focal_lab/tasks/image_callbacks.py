"""Callbacks that draw: validation images in TensorBoard, predicted ones as files."""

import colorsys
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.words import Colour, as_image

SHOWN = 8  # validation images in TensorBoard, the first of the set
_LEAST_SIDE = 320  # small images are enlarged to about this side, so that labels are readable
# Turns of the colour circle from one class to the next: the golden section keeps neighbours apart.
_TURN = 0.618034
# Saturation and brightness of the first 8 classes, of the next 8, and so on; after 40 with other hues.
# Chosen for the largest distance of any two of 21, 100 and 150 classes.
_HUES, _TONES = 8, ((0.8, 1.0), (1.0, 0.65), (0.35, 1.0), (0.5, 0.7), (1.0, 0.35))
_NEXT_TURN = 0.22
TRUE, FOUND = "TRUE", "FOUND"  # headings of the two sides of a validation image


class DisplayOptions:
    """How to show the images of a data module.

    Attributes:
        mean, std: of the normalisation, per channel, on a scale of 0 to 1.
        classes: names of the labels.
        ignored: the label of pixels that do not count, if there is one.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        self.mean: Sequence[float] = getattr(data, "mean", (0.0, 0.0, 0.0))
        self.std: Sequence[float] = getattr(data, "std", (1.0, 1.0, 1.0))
        self.classes: Classes = getattr(module, "classes", Classes())
        self.ignored: int | None = getattr(module, "ignore_index", None)

    def pixels(self, image_CHW: Tensor) -> Tensor:
        """A normalised image as uint8 (3, H, W) on the CPU."""
        return as_bytes(image_CHW, self.mean, self.std)


class ShowImages(Callback):
    """Validation images in TensorBoard: the truth on the left, the prediction on the right.

    The task's `validation_step` returns its predictions for the batch under the key `found`.
    """

    def __init__(self) -> None:
        self._shown = 0

    def draw_truth(self, display: DisplayOptions, image_3HW: Tensor, target: Any) -> Tensor:
        """The truth, over an image of bytes."""
        raise NotImplementedError

    def draw_found(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        """The prediction, over an image of bytes."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        logger = trainer.logger
        if self._shown >= SHOWN or not isinstance(logger, TensorBoardLogger):
            return
        if not isinstance(outputs, Mapping) or "found" not in outputs:  # a task of the user's own
            return
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        display = DisplayOptions(trainer, pl_module)
        for image, target, found in list(zip(*batch, outputs["found"], strict=True))[: SHOWN - self._shown]:
            pixels = display.pixels(image)
            sides = self.draw_truth(display, pixels, target), self.draw_found(display, pixels, found)
            logger.experiment.add_image(f"val/picture_{self._shown}", beside(*sides), trainer.global_step)
            self._shown += 1


class WriteImages(BasePredictionWriter):
    """`focal-lab predict`: drawn images in the folder `pictures`, named as their files or by number."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.display: DisplayOptions | None = None
        self.files: Sequence[Path] | None = None
        self._names: list[str] = []
        self._numbers: list[int] = []

    def draw(self, display: DisplayOptions, image_3HW: Tensor, found: Any) -> Tensor:
        """The prediction, over an image of bytes."""
        raise NotImplementedError

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        """Write or remember whatever else is predicted for an image.

        Args:
            folder: of all output files.
            name: of the image's file.
            written: name of its output files, without a suffix.
            number: its image ID, see `image_ids`.
            found: the task's prediction.
        """

    def notes(self) -> list[str]:
        """Further lines to report about the output."""
        return []

    def folder(self, trainer: Trainer) -> Path:
        """The trainer's log folder, for the output files."""
        return Path(trainer.log_dir or trainer.default_root_dir)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.display = DisplayOptions(trainer, pl_module)
        self.files = getattr(getattr(trainer, "datamodule", None), "predict_files", None)
        self._names, self._numbers = output_names(self.files or ()), image_ids(self.files or ())

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
        display, folder = self.display, self.folder(trainer)
        assert display is not None
        for image, target, found in zip(*batch, prediction, strict=True):
            index = int(target["image_id"])
            written = self._names[index] if self.files else str(index)
            name = str(Path(written).with_name(self.files[index].name)) if self.files else written
            file = folder / "pictures" / f"{written}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            as_image(self.draw(display, display.pixels(image), found)).save(file)
            self.keep(folder, name, written, self._numbers[index] if self.files else index, found)


def output_names(files: Sequence[Path]) -> list[str]:
    """Names of the images' output files, without a suffix.

    X for X.jpg. Where images of several folders are called X, all go into folders of the same names; where
    several of one folder are, they keep their suffix.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    folders: dict[str, set[Path]] = {}
    for path in paths:
        folders.setdefault(path.stem, set()).add(path.parent)
    below = [Path()] * len(paths)
    apart = [stem for stem, parents in folders.items() if len(parents) > 1]
    if apart:
        common = os.path.commonpath([path.parent for path in paths])
        below = [path.parent.relative_to(common) for path in paths]
        rank_zero_warn(
            f"images of several folders are called {apart[0]}: output files go into folders of the same names"
        )
    often = Counter((folder, path.stem) for folder, path in zip(below, paths, strict=True))
    for (_, stem), count in often.items():
        if count > 1:
            rank_zero_warn(
                f"several images are called {stem}: their output files keep the suffix, {stem}.SUFFIX.png"
            )
    named = [
        str(folder / (path.stem if often[folder, path.stem] == 1 else path.name))
        for folder, path in zip(below, paths, strict=True)
    ]
    if len(set(named)) == len(named):
        return named
    return [str(folder / path.name) for folder, path in zip(below, paths, strict=True)]


def image_ids(files: Sequence[Path]) -> list[int]:
    """The numbers that the files are named by if all are different numbers, as COCO's; else their indices."""
    stems = [file.stem for file in files]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(set(numbers)) == len(stems) else list(range(len(stems)))


def as_bytes(image_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A normalised image as uint8 (3, H, W) on the CPU: its first three channels, or one three times."""
    image_CHW = image_CHW.detach().float().cpu()[: 1 if len(image_CHW) < 3 else 3]
    mean_C, std_C = (torch.tensor(list(values))[:3].view(-1, 1, 1) for values in (mean, std))
    return ((image_CHW * std_C + mean_C) * 255).round().clamp(0, 255).byte().expand(3, -1, -1)


def beside(left_3HW: Tensor, right_3HW: Tensor) -> Tensor:
    """Two images with a white line between them; the lower one is padded with white below."""
    height = max(left_3HW.shape[1], right_3HW.shape[1])
    left_3HW, right_3HW = (
        F.pad(one, (0, 0, 0, height - one.shape[1]), value=255) for one in (left_3HW, right_3HW)
    )
    return torch.cat((left_3HW, left_3HW.new_full((3, height, 4), 255), right_3HW), 2)


def magnification(image_3HW: Tensor, least_side: int = _LEAST_SIDE) -> int:
    """How often to repeat the pixels of a small image so that drawings on it are visible."""
    return max(1, math.ceil(least_side / max(image_3HW.shape[1:])))


def enlarged(x_CHW: Tensor, factor: int) -> Tensor:
    """Each value `factor` times in both directions."""
    if factor == 1:
        return x_CHW
    return F.interpolate(x_CHW[None].float(), scale_factor=factor, mode="nearest")[0].to(torch.uint8)


def colour(label: int) -> Colour:
    """Red, green and blue of a class: far from its neighbours, and darker or paler after a turn."""
    saturation, value = _TONES[label // _HUES % len(_TONES)]
    hue = label * _TURN + label // (_HUES * len(_TONES)) * _NEXT_TURN
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
