"""A training counts the images that its test has evaluated, and names them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluated_tasks import MODELS
from support.tiny_task import quiet_trainer, tiny_config

from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.digits.scenes import DigitsDetection, DigitsSegmentation
from focal_lab.data.loading.collate import as_lists
from focal_lab.data.test_set import digests
from focal_lab.errors import UserError
from focal_lab.tasks.tested import CountTested
from focal_lab.training.fit import train
from focal_lab.utils.lazy_imports import find_class


@pytest.mark.parametrize(("limit", "count"), [(None, 7), (1, 4), (2, 7)])
def test_a_training_says_what_it_was_tested_on(limit: int | None, count: int) -> None:
    config = tiny_config(
        trainer={"max_epochs": 1, "limit_train_batches": 1}
        | ({} if limit is None else {"limit_test_batches": limit}),
        data={"batch_size": 4, "num_test_images": 7, "num_val_images": 4},
    )
    reported = train(config, Path("run")).tested_on
    assert reported["count"] == count
    listed = list(DigitsClassification(num_test_images=7).test_images())
    assert reported["images"] == digests(listed[:count], ())["images"]
    assert reported["labels"] == digests(listed[:count], ())["labels"]
    assert reported["classes"] == digests([], [str(digit) for digit in range(10)])["classes"]


def test_an_image_that_could_not_be_read_is_one_less() -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            folder = Path(split, name)
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((28, 28, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    Path("test/dog/1.png").write_bytes(b"broken")
    config = tiny_config(trainer={"max_epochs": 1}, num_classes=2)
    config["data"] = {
        "class_path": "focal_lab.data.ImageFolderDataModule",
        "init_args": {"root": ".", "image_size": 28, "batch_size": 2, "num_workers": 0},
    }
    assert train(config, Path("run")).tested_on["count"] == 5


@pytest.mark.parametrize("task", ["Detection", "Segmentation"])
def test_images_with_an_id_are_counted(task: str) -> None:
    config: dict[str, Any] = tiny_config(trainer={"max_epochs": 1, "limit_train_batches": 1})
    model = {
        "Detection": {
            "class_path": "focal_lab.tasks.Detection",
            "init_args": {"method": "retinanet", "pyramid_channels": 8, "warmup_steps": 0},
        },
        "Segmentation": {
            "class_path": "focal_lab.tasks.Segmentation",
            "init_args": {"decoder": "upernet", "decoder_channels": 8, "warmup_steps": 0},
        },
    }[task]
    init_args: Any = model["init_args"]
    options = {"embed_dim": 8, "depths": [1, 1, 1, 1]}
    init_args |= {"backbone": "focal_micro_patch2_window7_28", "backbone_options": options}
    data = {"image_size": 32, "smallest": 12, "largest": 20, "num_test_images": 7, "num_val_images": 2}
    config |= {
        "model": model,
        "data": {
            "class_path": f"focal_lab.data.Digits{task}",
            "init_args": data | {"batch_size": 2, "num_train_images": 4},
        },
    }
    assert train(config, Path("run")).tested_on["count"] == 7


def test_images_that_a_sampler_repeats_are_said_to_count_twice() -> None:
    class Trainer:
        world_size, global_rank = 1, 0
        test_dataloaders = torch.utils.data.DataLoader(range(3))  # type: ignore[arg-type]

    trainer: Any = Trainer()
    for labels, expected in (([0, 1, 2, 0], 1), ([0, 1, 2, -1], 0)):
        counted, nothing = CountTested(), quiet_trainer()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            counted.on_test_epoch_start(trainer, nothing)  # type: ignore[arg-type]
            counted.on_test_batch_end(trainer, nothing, None, [None, torch.tensor(labels)], 0)  # type: ignore[arg-type]
            counted.on_test_epoch_end(trainer, nothing)  # type: ignore[arg-type]
        said = [str(one.message) for one in caught if "count twice" in str(one.message)]
        assert (counted.count, len(said)) == (3 + expected, expected)


class SameNumber(torch.utils.data.Dataset[Any]):
    """Images that all have one number, as a data set of one's own may give them."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, truth = self.images[index]
        return image, truth | {"image_id": torch.tensor(5)}


@pytest.mark.parametrize("task", ["detection", "segmentation"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_images_of_one_number_are_refused_where_only_one_would_count(task: str, split: str) -> None:
    size = {"image_size": 32, "smallest": 12, "largest": 20, "num_val_images": 3, "num_test_images": 3}
    data: Any = {"detection": DigitsDetection, "segmentation": DigitsSegmentation}[task](
        **size, num_train_images=8
    )
    loader = torch.utils.data.DataLoader(SameNumber(data.dataset(split)), 2, collate_fn=as_lists)
    model = find_class(MODELS[task]["class_path"])(**MODELS[task]["init_args"], num_classes=11)
    trainer = quiet_trainer()
    evaluate = trainer.validate if split == "val" else trainer.test
    with pytest.raises(
        UserError, match=f"data: 3 images of {split} have the image_id 5, and only one of them"
    ):
        evaluate(model, loader, verbose=False)
