"""The embedded detection data: scenes of handwritten digits with a box and a mask for each."""

import torch

from focal_lab.data.digits.scene_data_module import ComposedScene, DigitsScenes, SceneDataset
from focal_lab.data.loading.collate import Target


class DetectedDigits(SceneDataset):
    """Images of side S with N visible digits.

    A target is `boxes`, float32 (N, 4), corners in px, the second exclusive; `labels`, int64 (N,), from 0;
    `masks`, uint8 (N, S, S), 1 where the digit is visible; `image_id`, int64 (), the index of the image.
    """

    def target(self, scene: ComposedScene) -> Target:
        numbers = torch.arange(1, len(scene.labels) + 1, dtype=torch.uint8)
        return {
            "boxes": torch.from_numpy(scene.boxes.copy()),
            "labels": torch.from_numpy(scene.labels.copy()),
            "masks": (torch.from_numpy(scene.owner) == numbers[:, None, None]).to(torch.uint8),
        }


class DigitsDetection(DigitsScenes):
    """One to several coloured MNIST digits of different size over clutter, with boxes and masks.

    What a later digit covers is not part of an earlier one's mask; boxes are tight around what is visible.
    Batches are a list of images and a list of targets, see `DetectedDigits`. Options: see
    `focal_lab.data.digits.scene_data_module.DigitsScenes`.
    """

    has_masks = True
    kind = DetectedDigits
