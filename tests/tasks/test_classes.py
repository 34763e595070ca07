"""The number of classes, and labels that have no output."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from support.small_tasks import small_detector, small_segmenter
from support.tiny_task import quiet_trainer
from torch.utils.data import DataLoader

from focal_lab.data.loading.collate import as_lists
from focal_lab.errors import UserError
from focal_lab.tasks.classes import check_count
from focal_lab.tasks.detection.methods import METHODS


class Own(LightningDataModule):
    """A data module of the user's, which does not say how many classes it has."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def train_dataloader(self) -> DataLoader[Any]:
        target = {
            "boxes": torch.tensor([[4.0, 4, 20, 20]]),
            "labels": torch.tensor([self.label]),
            "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
            "mask": torch.full((64, 64), self.label, dtype=torch.int32),
            "image_id": torch.tensor(7),
        }
        return DataLoader([(torch.zeros(3, 64, 64), target)] * 2, batch_size=2, collate_fn=as_lists)


@pytest.mark.parametrize("method", [*METHODS, "segmentation"])
@pytest.mark.parametrize("label", [-1, 10, 11])
def test_a_label_without_an_output_is_named_with_its_image(method: str, label: int) -> None:
    if method == "segmentation":
        task: Any = small_segmenter(num_classes=10, warmup_steps=0)
    else:
        task = small_detector(method, num_classes=10, warmup_steps=0)
    with pytest.raises(UserError, match=f"data: image 7 has the label {label}; the 10 classes of"):
        quiet_trainer(max_steps=1, limit_val_batches=0).fit(task, Own(label))


def test_pixels_that_do_not_count_may_have_any_label() -> None:
    task = small_segmenter(num_classes=10, ignore_index=99)
    batch = ([torch.zeros(3, 8, 8)], [{"mask": torch.tensor([[9, 99]]), "image_id": torch.tensor(0)}])
    assert task.on_before_batch_transfer(batch, 0) is batch


def test_one_class_more_than_the_data_has_is_background() -> None:
    data = SimpleNamespace(num_classes=2, class_names=("cat", "dog"))
    with pytest.raises(UserError, match=r"3 is not the number of classes .*: background is not counted"):
        check_count(3, data)
    for number, names in ((4, ("cat", "dog")), (3, ("background", "cat"))):
        with pytest.raises(UserError, match=r"or null to take it from the data\)"):
            check_count(number, SimpleNamespace(num_classes=2, class_names=names))
