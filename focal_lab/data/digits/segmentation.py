"""The embedded segmentation data: scenes of handwritten digits with the class of every pixel."""

import numpy as np
import torch

from focal_lab.data.digits.mnist5k import NUM_CLASSES
from focal_lab.data.digits.scene_data_module import ComposedScene, DigitsScenes, SceneDataset
from focal_lab.data.loading.collate import Target


class SegmentedDigits(SceneDataset):
    """Images of side S; a target is `mask`, uint8 (S, S), classes from 0, and `image_id`, int64 ()."""

    def target(self, scene: ComposedScene) -> Target:
        classes = np.concatenate(([0], scene.labels + 1)).astype(np.uint8)
        return {"mask": torch.from_numpy(classes[scene.owner])}


class DigitsSegmentation(DigitsScenes):
    """The images of `DigitsDetection` with the class of every pixel.

    Class 0 is background, pieces of other digits included; the digits 0 to 9 are the classes 1 to 10. Batches
    are a list of images and a list of targets, see `SegmentedDigits`. Options: see
    `focal_lab.data.digits.scene_data_module.DigitsScenes`.
    """

    num_classes = NUM_CLASSES + 1
    class_names = ("background", *(str(digit) for digit in range(NUM_CLASSES)))
    kind = SegmentedDigits
