"""The embedded scenes: labels fit the images, and images depend on what they should alone."""

from typing import Any

import pytest
import torch

from focal_lab.data.digits.scenes import DigitsDetection, DigitsSegmentation
from focal_lab.errors import UserError

SMALL: dict[str, Any] = {
    "num_train_images": 24,
    "num_val_images": 8,
    "num_test_images": 8,
    "batch_size": 4,
    "seed": 3,
}


def test_boxes_lie_tightly_around_masks_that_do_not_overlap() -> None:
    counts = set()
    for image, target in (DigitsDetection(**SMALL).dataset("train")[i] for i in range(24)):
        masks = target["masks"]
        assert image.shape == (3, 96, 96)
        assert image.dtype == torch.float32
        assert len(target["boxes"]) == len(target["labels"]) == len(masks)
        assert masks.sum(0).max() == 1
        for box, mask in zip(target["boxes"].int().tolist(), masks, strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        counts.add(len(masks))
    assert counts <= {1, 2, 3, 4, 5, 6}
    assert len(counts) >= 4


def test_an_image_depends_on_seed_and_number_alone() -> None:
    few, many = (
        DigitsDetection(**SMALL),
        DigitsDetection(**SMALL | {"num_train_images": 100, "batch_size": 2}),
    )
    other = DigitsDetection(**SMALL | {"seed": 4})
    for split in ("train", "val"):
        one, same = few.dataset(split)[5], many.dataset(split)[5]
        assert torch.equal(one[0], same[0])
        assert all(torch.equal(one[1][name], same[1][name]) for name in one[1])
        assert torch.equal(one[0], other.dataset(split)[5][0]) == (split == "val")


def test_batches_are_lists_and_go_on_in_order_after_a_resume() -> None:
    data = DigitsDetection(**SMALL)
    images, targets = next(iter(data.train_dataloader()))
    assert len(images) == len(targets) == 4
    state = data.state_dict()
    expected = [int(t["image_id"]) for _, batch in data.train_dataloader() for t in batch]
    resumed = DigitsDetection(**SMALL)
    resumed.load_state_dict(state)
    assert [int(t["image_id"]) for _, batch in resumed.train_dataloader() for t in batch] == expected
    assert sorted(expected) == list(range(24))


@pytest.mark.parametrize(
    ("option", "value"),
    [("largest", 97), ("smallest", 7), ("max_overlap", 1.0), ("num_train_images", 3), ("most_digits", 0)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(UserError, match="out of range") as error:
        DigitsDetection(**SMALL | {option: value})
    assert error.value.key == f"data.init_args.{option}"


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
