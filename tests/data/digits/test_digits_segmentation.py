"""The embedded segmentation scenes: the detection scenes with the class of every pixel."""

from typing import Any

import torch

from focal_lab.data.digits.detection import DigitsDetection
from focal_lab.data.digits.segmentation import DigitsSegmentation

SMALL: dict[str, Any] = {
    "num_train_images": 24,
    "num_val_images": 8,
    "num_test_images": 8,
    "batch_size": 4,
    "seed": 3,
}


def test_masks_are_the_detection_scenes_and_background_is_zero() -> None:
    detection, segmentation = DigitsDetection(**SMALL), DigitsSegmentation(**SMALL)
    seen: set[int] = set()
    for i in range(24):
        image, target = segmentation.dataset("train")[i]
        same, objects = detection.dataset("train")[i]
        assert torch.equal(image, same)
        expected = torch.zeros(96, 96, dtype=torch.uint8)
        for label, mask in zip(objects["labels"], objects["masks"], strict=True):
            expected[mask.bool()] = label.to(torch.uint8) + 1
        assert torch.equal(target["mask"], expected)
        assert int(target["image_id"]) == i
        seen |= set(expected.unique().tolist())
    assert seen == set(range(11))


def test_classes_are_background_and_ten_digits() -> None:
    data = DigitsSegmentation(**SMALL)
    assert (data.num_classes, len(data.class_names)) == (11, 11)
    assert data.class_names[:2] == ("background", "0")


def test_pieces_of_other_digits_are_background() -> None:
    plain = DigitsSegmentation(**SMALL | {"pieces": 0}).dataset("train")[0]
    cluttered = DigitsSegmentation(**SMALL | {"pieces": 8}).dataset("train")[0]
    assert not torch.equal(plain[0], cluttered[0])
    assert torch.equal(plain[1]["mask"], cluttered[1]["mask"])
