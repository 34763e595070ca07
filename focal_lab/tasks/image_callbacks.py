"""Callbacks that draw: validation images in TensorBoard, predicted ones as files."""

import colorsys
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from focal_lab.tasks.classes import Classes
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


# Draws what a task (the first argument) is given or predicts for an image of uint8 (3, H, W).
Draw = Callable[[Any, Tensor, Any], Tensor]


class ShowImages(Callback):
    """Validation images in TensorBoard: the truth on the left, the prediction on the right.

    The task's `validation_step` returns its predictions for the batch under the key `found`.
    """

    def __init__(self, draw_truth: Draw, draw_found: Draw) -> None:
        self._draw_truth, self._draw_found = draw_truth, draw_found
        self._shown = 0

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
        data = getattr(trainer, "datamodule", None)
        for image, target, found in list(zip(*batch, outputs["found"], strict=True))[: SHOWN - self._shown]:
            pixels = as_bytes(image, data)
            sides = self._draw_truth(pl_module, pixels, target), self._draw_found(pl_module, pixels, found)
            logger.experiment.add_image(f"val/picture_{self._shown}", beside(*sides), trainer.global_step)
            self._shown += 1


class WriteImages(BasePredictionWriter):
    """`focal-lab predict`: drawn images in the folder `pictures`, named as their files or by number."""

    def __init__(self) -> None:
        super().__init__("batch")
        self._files: Sequence[Path] = ()
        self._names: list[str] = []
        self._numbers: list[int] = []

    def draw(self, task: Any, image_3HW: Tensor, found: Any) -> Tensor:
        """The prediction, over an image of bytes."""
        raise NotImplementedError

    def keep(self, classes: Classes, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        """Write or remember whatever else is predicted for an image.

        `name` is that of its file, `written` that of its output files in `folder`, without a suffix, and
        `number` its image ID, see `image_ids`.
        """

    def notes(self) -> list[str]:
        """Further lines to report about the output."""
        return []

    def folder(self, trainer: Trainer) -> Path:
        """The trainer's log folder, for the output files."""
        return Path(trainer.log_dir or trainer.default_root_dir)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._files = getattr(getattr(trainer, "datamodule", None), "predict_files", None) or ()
        self._names, self._numbers = output_names(self._files), image_ids(self._files)

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
        folder, data = self.folder(trainer), getattr(trainer, "datamodule", None)
        for image, target, found in zip(*batch, prediction, strict=True):
            number = int(target["image_id"])
            written = name = str(number)
            if self._files:
                written, file = self._names[number], self._files[number]
                name, number = str(Path(written).with_name(file.name)), self._numbers[number]
            drawn = folder / "pictures" / f"{written}.png"
            drawn.parent.mkdir(parents=True, exist_ok=True)
            as_image(self.draw(pl_module, as_bytes(image, data), found)).save(drawn)
            self.keep(getattr(pl_module, "classes", Classes()), folder, name, written, number, found)


def output_names(files: Sequence[Path]) -> list[str]:
    """Names of the images' output files, without a suffix.

    X for X.jpg. Where images of several folders are called X, all go into folders of the same names; where
    several of one folder are, they keep their suffix.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    folders: dict[str, set[Path]] = {}
    for path in paths:
        folders.setdefault(path.stem, set()).add(path.parent)
    apart = [stem for stem, parents in folders.items() if len(parents) > 1]
    named = [Path(path.name) for path in paths]
    if apart:
        common = os.path.commonpath([path.parent for path in paths])
        named = [path.relative_to(common) for path in paths]
        rank_zero_warn(
            f"images of several folders are called {apart[0]}: output files go into folders of the same names"
        )
    often = Counter(name.with_suffix("") for name in named)
    for name, count in often.items():
        if count > 1:
            rank_zero_warn(
                f"several images are called {name.name}: their output files keep the suffix, "
                f"{name.name}.SUFFIX.png"
            )
    short = [str(name.with_suffix("") if often[name.with_suffix("")] == 1 else name) for name in named]
    return short if len(set(short)) == len(short) else [str(name) for name in named]


def image_ids(files: Sequence[Path]) -> list[int]:
    """The numbers that the files are named by if all are different numbers, as COCO's; else their indices."""
    stems = [file.stem for file in files]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(set(numbers)) == len(stems) else list(range(len(stems)))


def as_bytes(image_CHW: Tensor, data: Any) -> Tensor:
    """An image that a data module normalised as uint8 (3, H, W): its first three channels, or one thrice."""
    mean: Sequence[float] = getattr(data, "mean", (0.0, 0.0, 0.0))
    std: Sequence[float] = getattr(data, "std", (1.0, 1.0, 1.0))
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


def magnification(image_3HW: Tensor) -> int:
    """How often to repeat the pixels of a small image so that drawings on it are visible."""
    return max(1, math.ceil(_LEAST_SIDE / max(image_3HW.shape[1:])))


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
