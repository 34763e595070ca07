"""What a detector shows in TensorBoard and writes to files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faster_coco_eval.core import mask as rle
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.digits.scenes import DigitsDetection
from focal_lab.tasks.classes import Classes
from focal_lab.tasks.detection.images import draw
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.image_callbacks import as_bytes


def small_task(method: str) -> Detection:
    torch.manual_seed(0)
    return Detection(
        method,
        "focal_micro",
        {"img_size": 64},
        num_classes=10,
        pyramid_channels=16,
        head_width=16,
        warmup_steps=0,
    )


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        **options,
    )


def test_validation_images_with_truth_and_answer_are_in_tensorboard(tmp_path: Path) -> None:
    data = DigitsDetection(
        image_size=64,
        largest=32,
        num_train_images=2,
        num_val_images=10,
        num_test_images=1,
        batch_size=2,
        seed=0,
    )
    trainer(tmp_path, num_sanity_val_steps=1).fit(small_task("mask_rcnn"), data)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    names = events.Tags()["images"]
    assert sorted(names) == [f"val/picture_{i}" for i in range(8)]
    (shown,) = events.Images("val/picture_0")
    assert shown.width == 2 * 320 + 4
    assert 320 < shown.height < 400  # words below say which side is which


@pytest.mark.parametrize("method", ["retinanet", "mask_rcnn"])
def test_predict_writes_cocos_result_file_and_images_without_an_annotation_file(
    tmp_path: Path, method: str
) -> None:
    task = small_task(method)
    task.classes = Classes(tuple("abcdefghij"), tuple(range(10, 20)))
    getattr(task.model, "roi_heads", task.model).score_thresh = 0.0
    (tmp_path / "in").mkdir()
    torch.manual_seed(0)
    for name, size in (("000000000042.png", (50, 60)), ("cat.jpg", (40, 30))):
        pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    data = CocoDataModule(str(tmp_path), predict_images="in", num_workers=0)
    trainer(tmp_path / "out").predict(task, data, return_predictions=False)
    results = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert {(entry["image_id"], entry["file_name"]) for entry in results} == {
        (0, "000000000042.png"),  # not all names are numbers, so places are the ids
        (1, "cat.jpg"),
    }
    assert all(10 <= entry["category_id"] <= 19 for entry in results)
    first = next(entry for entry in results if entry["image_id"] == 0)
    left, top, width, height = first["bbox"]
    assert 0 <= left <= left + width <= 60.01
    assert 0 <= top <= top + height <= 50.01
    if method == "mask_rcnn":
        assert rle.decode(first["segmentation"]).shape == (50, 60)
    drawn = sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir())
    assert drawn == ["000000000042.png", "cat.png"]


def test_names_and_category_ids_go_with_the_weights(tmp_path: Path) -> None:
    task = small_task("retinanet")
    task.classes = Classes(("a", "b"), (3, 90))
    runner = trainer(tmp_path)
    runner.strategy.connect(task)
    runner.save_checkpoint(tmp_path / "made.ckpt", weights_only=False)
    loaded = Detection.load_from_checkpoint(tmp_path / "made.ckpt", weights_only=True)
    assert loaded.classes == task.classes
    assert (loaded.classes.name(1), loaded.classes.category_id(1)) == ("b", 90)
    assert (loaded.classes.name(5), loaded.classes.category_id(5)) == ("5", 5)


def found(**more: Tensor) -> dict[str, Tensor]:
    boxes = torch.tensor([[2.0, 2.0, 20.0, 20.0], [30.0, 30.0, 38.0, 38.0]])
    return {"boxes": boxes, "labels": torch.tensor([0, 1])} | more


def test_what_is_too_uncertain_or_a_crowd_is_not_drawn() -> None:
    black = torch.zeros(3, 40, 40, dtype=torch.uint8)
    one = draw(black, found(scores=torch.tensor([0.9, 0.1])), Classes(), 0.5)
    crowd = draw(black, found(iscrowd=torch.tensor([0, 1])), Classes())
    both = draw(black, found(), Classes())
    corner = (slice(None), slice(232, 310), slice(232, 310))
    upper = (slice(None), slice(232, 280), slice(232, 310))
    assert one[upper].sum() == crowd[corner].sum() == 0
    assert both[corner].sum() > 0
    nothing = draw(black, found(scores=torch.tensor([0.1, 0.1])), Classes(), 0.5)
    assert nothing.shape[1] > 320  # how many are not drawn stands below
    assert nothing[:, :320].sum() == 0 < nothing[:, 320:].sum()


def test_a_normalised_image_is_shown_as_it_was() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 4, 1)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    normal = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(as_bytes(normal, SimpleNamespace(mean=mean, std=std)), pixels)
