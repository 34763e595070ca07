"""The embedded detection data: scenes of handwritten digits with a box and a mask for each.

Shape suffixes: N objects of a picture, H W its size in px.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.digits.mnist5k import Split
from focal_lab.data.digits.scene_data_module import DigitsScenes, SceneStore
from focal_lab.data.loading.collate import Target, as_lists


class DigitsDetection(DigitsScenes["SceneDataset"]):
    """Where is which digit? One to several coloured MNIST digits of different size over clutter.

    What a later digit covers is not part of an earlier one's mask, and boxes lie tightly around what is seen.
    Batches are a list of pictures and a list of what is in them, see `SceneDataset`. Options: see
    `focal_lab.data.digits.scene_data_module.DigitsScenes`.
    """

    has_masks = True

    def collate_fn(self, split: Split) -> Callable[[Any], Any]:
        """Pictures stay apart."""
        return as_lists

    def make(self, split: Split, seed: int, count: int) -> "SceneDataset":
        """Pictures with boxes, labels and masks."""
        return SceneDataset(self.store(split, seed, count))


class SceneDataset(Dataset[tuple[Tensor, Target]]):
    """Scenes with their objects.

    An item is a normalised picture, float32 (3, H, W), and what is in it: `boxes`, float32 (N, 4), corners in
    px of which the second is exclusive; `labels`, int64 (N,), from 0; `masks`, uint8 (N, H, W), 1 where the
    object is seen; `image_id`, int64 (), the number of the picture.
    """

    def __init__(self, store: SceneStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        kept = self.store[index]
        numbers = torch.arange(1, len(kept.labels) + 1, dtype=torch.uint8)
        target = {
            "boxes": torch.from_numpy(kept.boxes.copy()),
            "labels": torch.from_numpy(kept.labels.copy()),
            "masks": (torch.from_numpy(kept.owner) == numbers[:, None, None]).to(torch.uint8),
            "image_id": torch.tensor(index),
        }
        return kept.normalised(), target
