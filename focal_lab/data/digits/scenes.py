"""Embedded images of several handwritten digits, for detection and segmentation.

Shape suffixes: N visible digits of an image, S its side in px.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.digits.classification import MEAN, STD, normalise
from focal_lab.data.digits.drawing import INK, Stamp, paint, random_scene, region
from focal_lab.data.digits.embedded import EmbeddedData
from focal_lab.data.digits.mnist5k import NUM_CLASSES, Digits, Split, source_digits
from focal_lab.data.loading.collate import Target, as_lists
from focal_lab.data.option_checks import check, check_least

# Random streams of their own: the classification images have 0, 1 and 2.
_STREAMS: dict[Split, int] = {"train": 10, "val": 11, "test": 12}


class Scene(NamedTuple):
    """An image and its labels, kept as bytes.

    Attributes:
        pixels: uint8, shape (3, S, S).
        owner: number of the digit that each pixel belongs to, from 1; 0 for none; uint8, shape (S, S).
        boxes: corners around the digits' visible pixels, the second exclusive, float32, shape (N, 4).
        labels: classes of the digits, int64, shape (N,); those that are fully covered are left out.
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def compose(objects: list[Stamp], pieces: list[Stamp], digits: Digits, side: int) -> Scene:
    """Paint pieces and then objects onto a square canvas, and label the objects."""
    pixels_3SS = np.zeros((3, side, side), np.uint8)
    for stamp in (*pieces, *objects):
        paint(pixels_3SS, stamp)
    on_top_SS = np.zeros((side, side), np.int64)
    for number, stamp in enumerate(objects, 1):
        on_top_SS[region(stamp)][stamp.ink >= INK] = number
    seen = [number for number in np.unique(on_top_SS).tolist() if number]
    owner_SS = np.zeros((side, side), np.uint8)
    boxes = []
    for place, number in enumerate(seen, 1):
        mask_SS = on_top_SS == number
        owner_SS[mask_SS] = place
        rows, columns = np.flatnonzero(mask_SS.any(axis=1)), np.flatnonzero(mask_SS.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    labels = np.array([digits.labels[objects[number - 1].digit] for number in seen], np.int64)
    return Scene(pixels_3SS, owner_SS, np.array(boxes, np.float32).reshape(-1, 4), labels)


class SceneDataset(Dataset[tuple[Tensor, Target]]):
    """The first `count` scenes of a split, composed when first used: images, float32 (3, S, S), and targets.

    Every target has `image_id`, int64 (), the index of the image.
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        count: int,
        options: Mapping[str, Any],
        target: Callable[[Scene], Target],
    ) -> None:
        self.split: Split = split
        self.seed, self.count, self.options, self.target = seed, count, options, target
        self._composed: dict[int, Scene] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if index not in self._composed:
            self._composed[index] = self._compose(index)
        scene = self._composed[index]
        target = self.target(scene) | {"image_id": torch.tensor(index)}
        return normalise(torch.from_numpy(scene.pixels)), target

    def _compose(self, index: int) -> Scene:
        rng = np.random.default_rng([self.seed, _STREAMS[self.split], index])
        digits, options = source_digits(self.split), self.options
        objects, pieces = random_scene(
            rng,
            digits,
            side=options["image_size"],
            objects=int(rng.integers(1, options["most_digits"] + 1)),
            pieces=options["pieces"],
            sizes=(options["smallest"], options["largest"]),
            max_overlap=options["max_overlap"],
        )
        return compose(objects, pieces, digits, options["image_size"])


class DigitsScenes(EmbeddedData):
    """One to several coloured MNIST digits of different size, slightly overlapping, over clutter.

    Image i of a split depends only on the seed, the split, i and the options that say what is drawn, not on
    how many images there are. Training images are composed of other handwriting than validation and test.

    Memory: 4 * image_size^2 bytes for each image used so far, 110 MB for the default training set.

    Args:
        image_size: side of the image in px.
        most_digits: an image has 1 to this many.
        smallest: least side of a digit's square, px.
        largest: greatest side of a digit's square, px.
        max_overlap: share of the smaller of two squares that the other may cover.
        pieces: how many 8 px crops of other digits lie under them.
        num_train_images: how many different training images there are; an epoch shows each once.
        num_val_images: how many validation images.
        num_test_images: how many test images.
        batch_size: images per batch and process. The last incomplete training batch is dropped.
        num_workers: worker processes; composing an image takes about a millisecond, once.
        seed: of the training images and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on any seed.
        data_seed: of the training images alone; None for `seed`.
        order_seed: of their order, and of everything else that is random in training, such as drop path;
            None for `seed` in the order and the seed of the run in the rest.

    Raises:
        UserError: an option is out of range.
    """

    # those of the classification images: backbones come from there
    mean = (MEAN,) * 3
    std = (STD,) * 3
    collate = staticmethod(as_lists)

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
        data_seed: int | None = None,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_least(self.hparams, {"image_size": 16, "most_digits": 1, "smallest": 8, "pieces": 0})
        rule = f"use smallest to image_size, {smallest} to {image_size}"
        check("largest", largest, smallest <= largest <= image_size, rule)
        check("max_overlap", max_overlap, 0 <= max_overlap < 1, "use 0 to less than 1")
        self.begin()

    @staticmethod
    @abstractmethod
    def target(scene: Scene) -> Target:
        """The targets of the task."""

    def make(self, split: Split, seed: int, count: int) -> SceneDataset:
        return SceneDataset(split, seed, count, self.hparams, self.target)


class DigitsDetection(DigitsScenes):
    """One to several coloured MNIST digits of different size over clutter, with boxes and masks.

    What a later digit covers is not part of an earlier one's mask; boxes are tight around what is visible.
    Batches are a list of images and a list of targets, see `target`. Options: see
    `focal_lab.data.digits.scenes.DigitsScenes`.
    """

    has_masks = True

    @staticmethod
    def target(scene: Scene) -> Target:
        """`boxes`, `labels` and `masks`.

        `boxes`, float32 (N, 4), are corners in px, the second exclusive; `labels`, int64 (N,), count from 0;
        `masks`, uint8 (N, S, S), are 1 where the digit is visible.
        """
        numbers = torch.arange(1, len(scene.labels) + 1, dtype=torch.uint8)
        return {
            "boxes": torch.from_numpy(scene.boxes.copy()),
            "labels": torch.from_numpy(scene.labels.copy()),
            "masks": (torch.from_numpy(scene.owner) == numbers[:, None, None]).to(torch.uint8),
        }


class DigitsSegmentation(DigitsScenes):
    """The images of `DigitsDetection` with the class of every pixel.

    Class 0 is background, pieces of other digits included; the digits 0 to 9 are the classes 1 to 10. Batches
    are a list of images and a list of targets, see `target`. Options: see
    `focal_lab.data.digits.scenes.DigitsScenes`.
    """

    num_classes = NUM_CLASSES + 1
    class_names = ("background", *(str(digit) for digit in range(NUM_CLASSES)))

    @staticmethod
    def target(scene: Scene) -> Target:
        """`mask`, uint8 (S, S): 0 for background and the digit + 1 elsewhere."""
        classes = np.concatenate(([0], scene.labels + 1)).astype(np.uint8)
        return {"mask": torch.from_numpy(classes[scene.owner])}
