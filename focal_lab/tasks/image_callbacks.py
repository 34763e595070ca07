"""What tasks draw: validation pictures in TensorBoard, predicted ones as files."""

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
from focal_lab.tasks.words import as_image

# Validation pictures in TensorBoard, the first of the set.
SHOWN = 8
# Small pictures are enlarged to about this side, so that labels can be read.
_LEAST_SIDE = 320
# Turns of the colour circle from one class to the next: the golden section keeps neighbours apart.
_TURN = 0.618034
# Saturation and brightness of the first 8 classes, of the next 8, and so on; after 40 in other hues.
# Searched for the largest distance of any two of 21, 100 and 150 classes.
_HUES, _TONES = 8, ((0.8, 1.0), (1.0, 0.65), (0.35, 1.0), (0.5, 0.7), (1.0, 0.35))
_NEXT_TURN = 0.22
# What the two sides of a validation picture are called.
TRUE, FOUND = "TRUE", "FOUND"


class Look:
    """How to show the pictures of a data module.

    Attributes:
        mean: what was subtracted from each channel, on a scale of 0 to 1.
        std: what each channel was divided by.
        classes: what the labels are called.
        ignored: the label of pixels that do not count, where there is one.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        self.mean: Sequence[float] = getattr(data, "mean", (0.0, 0.0, 0.0))
        self.std: Sequence[float] = getattr(data, "std", (1.0, 1.0, 1.0))
        self.classes: Classes = getattr(module, "classes", Classes())
        self.ignored: int | None = getattr(module, "ignore_index", None)

    def pixels(self, picture_3HW: Tensor) -> Tensor:
        """A normalised picture as it was, uint8 (3, H, W), on the processor."""
        return as_bytes(picture_3HW, self.mean, self.std)


class ShowPictures(Callback):
    """Validation pictures in TensorBoard: on the left what is there, on the right what was found.

    The task's `validation_step` returns what it found in each picture under the key `found`.
    """

    def __init__(self) -> None:
        self._shown = 0

    def draw_truth(self, look: Look, picture_3HW: Tensor, target: Any) -> Tensor:
        """What is there, over a picture of bytes."""
        raise NotImplementedError

    def draw_found(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """What was found, over a picture of bytes."""
        raise NotImplementedError

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
        if not isinstance(outputs, Mapping) or "found" not in outputs:  # a task of the user's own
            return
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        look = Look(trainer, pl_module)
        for picture, target, found in list(zip(*batch, outputs["found"], strict=True))[: SHOWN - self._shown]:
            pixels = look.pixels(picture)
            drawn = beside(self.draw_truth(look, pixels, target), self.draw_found(look, pixels, found))
            logger.experiment.add_image(f"val/picture_{self._shown}", drawn, trainer.global_step)
            self._shown += 1


class WritePictures(BasePredictionWriter):
    """`focal-lab predict`: drawn pictures in the folder `pictures`, called as their files or by number."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.look: Look | None = None
        self.files: Sequence[Path] | None = None
        self._names: list[str] = []
        self._numbers: list[int] = []

    def draw(self, look: Look, picture_3HW: Tensor, found: Any) -> Tensor:
        """What was found, over a picture of bytes."""
        raise NotImplementedError

    def keep(self, folder: Path, name: str, written: str, number: int, found: Any) -> None:
        """Whatever else is written of an image.

        Args:
            folder: of all that is predicted.
            name: of the image's file.
            written: what its output files are called, without a suffix.
            number: its image ID, see `image_ids`.
            found: what the task found in it.
        """

    def notes(self) -> list[str]:
        """What else to say of all that was written, a line each."""
        return []

    def folder(self, trainer: Trainer) -> Path:
        """Where the files go: the trainer's log folder."""
        return Path(trainer.log_dir or trainer.default_root_dir)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is found yet."""
        self.look = Look(trainer, pl_module)
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
        """Draw the pictures of one batch and keep what was found in them."""
        look, folder = self.look, self.folder(trainer)
        assert look is not None
        for picture, target, found in zip(*batch, prediction, strict=True):
            number = int(target["image_id"])
            written = self._names[number] if self.files else str(number)
            name = str(Path(written).with_name(self.files[number].name)) if self.files else written
            file = folder / "pictures" / f"{written}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            as_image(self.draw(look, look.pixels(picture), found)).save(file)
            numbered = self._numbers[number] if self.files else number
            self.keep(folder, name, written, numbered, found)


def output_names(files: Sequence[Path]) -> list[str]:
    """What the output files of images are called, without a suffix.

    X for X.jpg. Where images of several folders are called X, all go into folders called as theirs; where
    several of one folder are, they keep their suffix.
    """
    places = [Path(os.path.abspath(file)) for file in files]
    folders: dict[str, set[Path]] = {}
    for place in places:
        folders.setdefault(place.stem, set()).add(place.parent)
    below = [Path()] * len(places)
    apart = [stem for stem, parents in folders.items() if len(parents) > 1]
    if apart:
        common = os.path.commonpath([place.parent for place in places])
        below = [place.parent.relative_to(common) for place in places]
        rank_zero_warn(
            f"images of several folders are called {apart[0]}: output files go into folders of the same names"
        )
    often = Counter((folder, place.stem) for folder, place in zip(below, places, strict=True))
    for (_, stem), count in often.items():
        if count > 1:
            rank_zero_warn(
                f"several images are called {stem}: their output files keep the suffix, {stem}.SUFFIX.png"
            )
    named = [
        str(folder / (place.stem if often[folder, place.stem] == 1 else place.name))
        for folder, place in zip(below, places, strict=True)
    ]
    if len(set(named)) == len(named):
        return named
    return [str(folder / place.name) for folder, place in zip(below, places, strict=True)]


def image_ids(files: Sequence[Path]) -> list[int]:
    """The numbers that files are called by where all are, each by another, as COCO's; else their places."""
    stems = [file.stem for file in files]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(set(numbers)) == len(stems) else list(range(len(stems)))


def as_bytes(picture_3HW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A normalised picture as it was, uint8 (3, H, W), on the processor."""
    # of more than three channels the first three
    picture_3HW = picture_3HW.detach().float().cpu()[: 1 if len(picture_3HW) < 3 else 3]
    mean_3, std_3 = (torch.tensor(list(values))[:3].view(-1, 1, 1) for values in (mean, std))
    # a grey picture has one channel
    return ((picture_3HW * std_3 + mean_3) * 255).round().clamp(0, 255).byte().expand(3, -1, -1)


def beside(left_3HW: Tensor, right_3HW: Tensor) -> Tensor:
    """Two pictures with a white line between them; the lower one is filled up with white below."""
    height = max(left_3HW.shape[1], right_3HW.shape[1])
    left_3HW, right_3HW = (
        F.pad(one, (0, 0, 0, height - one.shape[1]), value=255) for one in (left_3HW, right_3HW)
    )
    line = left_3HW.new_full((3, height, 4), 255)
    return torch.cat((left_3HW, line, right_3HW), 2)


def magnification(picture_3HW: Tensor, least_side: int = _LEAST_SIDE) -> int:
    """How often to repeat the pixels of a small picture so that what is drawn on it can be seen."""
    return max(1, math.ceil(least_side / max(picture_3HW.shape[1:])))


def enlarged(x_CHW: Tensor, factor: int) -> Tensor:
    """Each value `factor` times in both directions."""
    if factor == 1:
        return x_CHW
    return F.interpolate(x_CHW[None].float(), scale_factor=factor, mode="nearest")[0].to(torch.uint8)


def colour(label: int) -> tuple[int, int, int]:
    """Red, green and blue of a class: far from the classes next to it, and darker or paler after a turn."""
    saturation, value = _TONES[label // _HUES % len(_TONES)]
    hue = label * _TURN + label // (_HUES * len(_TONES)) * _NEXT_TURN
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
