"""The embedded segmentation data: scenes of handwritten digits with the class of every pixel.

Shape suffixes: H W size of a picture in px.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.digits.mnist5k import NUM_CLASSES, Split
from focal_lab.data.digits.scene_data_module import DigitsScenes, SceneStore
from focal_lab.data.loading.collate import Target, as_lists


class DigitsSegmentation(DigitsScenes["SemanticDataset"]):
    """Which pixels belong to which digit? One to several coloured MNIST digits over clutter.

    The pictures are those of `DigitsDetection`. Class 0 is background, and so are the pieces of other digits;
    the digits 0 to 9 are the classes 1 to 10. Batches are a list of pictures and a list of what is in them,
    see `SemanticDataset`. Options: see `focal_lab.data.digits.scene_data_module.DigitsScenes`.
    """

    num_classes = NUM_CLASSES + 1
    class_names = ("background", *(str(digit) for digit in range(NUM_CLASSES)))

    def collate_fn(self, split: Split) -> Callable[[Any], Any]:
        """Pictures stay apart."""
        return as_lists

    def make(self, split: Split, seed: int, count: int) -> "SemanticDataset":
        """Pictures with a mask of classes."""
        return SemanticDataset(self.store(split, seed, count))


class SemanticDataset(Dataset[tuple[Tensor, Target]]):
    """Scenes with the class of every pixel.

    An item is a normalised picture, float32 (3, H, W), and a dictionary: `mask`, uint8 (H, W), classes from
    0; `image_id`, int64 (), the number of the picture.
    """

    def __init__(self, store: SceneStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        kept = self.store[index]
        classes = np.concatenate(([0], kept.labels + 1)).astype(np.uint8)
        return kept.normalised(), {
            "mask": torch.from_numpy(classes[kept.owner]),
            "image_id": torch.tensor(index),
        }
