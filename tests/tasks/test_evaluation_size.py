"""At what size a task is evaluated: what the network is really fed is what everything that asks is given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from support.sized_project import coco_options, folder_options, most, write_world
from support.tiny_task import tiny_config
from torch import nn

from focal_lab.backbones.options import Size
from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.digits.scenes import DigitsDetection, DigitsSegmentation
from focal_lab.data.segmentation.mask_folder import SegmentationFolder
from focal_lab.tasks.base import EVALUATED_AT, Task
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.features import Features
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.training.cost import count_config

NET = {"backbone": "test_resnet"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of each kind; most images are 48 px high and 64 px wide, the first one is not."""
    return write_world(tmp_path_factory.mktemp("data"), [(64, 48), (48, 64), (48, 64)])


def coco(root: Path, **options: Any) -> LightningDataModule:
    return CocoDataModule(**coco_options(root), **options)


def folders(root: Path, **options: Any) -> LightningDataModule:
    return SegmentationFolder(**folder_options(root), **options)


def digits(kind: Any, side: int) -> LightningDataModule:
    more = {} if kind is DigitsClassification else {"largest": 40}
    made: LightningDataModule = kind(image_size=side, num_val_images=2, batch_size=1, **more)
    return made


def detector(method: str = "retinanet", **options: Any) -> Detection:
    return Detection(method, **NET, num_classes=10, pyramid_channels=64, head_width=32, **options)


def segmenter(**options: Any) -> Segmentation:
    return Segmentation(**NET, decoder="fpn", decoder_channels=32, num_classes=11, **options)


def fed(module: Task, data: LightningDataModule) -> list[Size]:
    """Height and width of all that a validation feeds to the backbone."""
    seen: list[Size] = []
    backbone: nn.Module = next(
        (part for part in module.modules() if isinstance(part, Features)), module.model
    )
    backbone.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", **quiet).validate(module, data, verbose=False)
    return seen


@pytest.mark.parametrize(
    ("task", "data", "size"),
    [
        (
            lambda: Classification("test_resnet", num_classes=10),
            lambda _: digits(DigitsClassification, 32),
            (32, 32),
        ),
        (
            lambda: Classification("test_resnet", num_classes=2),
            lambda root: ImageFolderDataModule(str(root), image_size=40, batch_size=1, num_workers=0),
            (40, 40),
        ),
        (lambda: detector(min_size=[192], max_size=256), coco, (192, 256)),
        (lambda: detector("fcos", min_size=[64, 96]), coco, (96, 128)),
        (lambda: detector("faster_rcnn", min_size=[100], max_size=120), coco, (96, 128)),
        (lambda: detector("mask_rcnn"), coco, (64, 64)),
        (lambda: detector(), lambda _: digits(DigitsDetection, 72), (96, 96)),
        (lambda: segmenter(test_size=None), lambda _: digits(DigitsSegmentation, 72), (96, 96)),
        (lambda: segmenter(test_size=None), folders, (64, 64)),
        (lambda: segmenter(test_size=96), folders, (96, 128)),
        (lambda: segmenter(test_size=96, max_size=96), folders, (64, 96)),
        (lambda: segmenter(test_size=96, evaluation="slide", window=64, window_step=32), folders, (64, 64)),
        (lambda: segmenter(test_size=64, evaluation="slide", window=96, window_step=32), folders, (64, 96)),
    ],
)
def test_the_size_is_that_of_what_most_validation_images_feed_to_the_network(
    task: Any, data: Any, size: Size, root: Path
) -> None:
    torch.manual_seed(0)
    module, served = task(), data(root)
    found = evaluation_size(module, served)
    assert found.size == size
    assert found.known
    seen = fed(module, served)
    assert most(seen) == size


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (lambda: detector(min_size=[800]), (800, 1280)),
        (lambda: detector(min_size=[192], max_size=256), (192, 256)),
        (lambda: segmenter(), (512, 2048)),
        (lambda: segmenter(test_size=96), (96, 384)),
        (lambda: segmenter(evaluation="slide"), (512, 512)),
        (lambda: Classification("focal_micro_patch2_window7_28", {"img_size": 56}, num_classes=10), (56, 56)),
        (lambda: Classification("test_resnet", num_classes=10), (160, 160)),
    ],
)
def test_without_images_it_is_the_papers_shape_within_the_tasks_limits(task: Any, size: Size) -> None:
    assert evaluation_size(task(), None).size == size
    assert not evaluation_size(task(), None).known


def test_a_size_that_is_said_goes_through_the_tasks_resizing(root: Path) -> None:
    assert evaluation_size(detector(min_size=[96]), coco(root, image_size=(480, 640))).size == (96, 128)


def test_costs_are_counted_at_that_size_and_a_checkpoint_notes_it(root: Path, tmp_path: Path) -> None:
    config = tiny_config() | {
        "model": {
            "class_path": "focal_lab.tasks.Detection",
            "init_args": NET
            | {"method": "retinanet", "num_classes": 10, "min_size": [64], "pyramid_channels": 32},
        },
        "data": {
            "class_path": "focal_lab.data.CocoDataModule",
            "init_args": {"root": str(root), "val_images": "img", "val_annotations": "val.json"},
        },
    }
    counted = count_config(config)
    assert (counted.evaluated.size, counted.evaluated.source) == ((64, 96), "images")
    module = Detection("retinanet", **NET, num_classes=10, min_size=[64], pyramid_channels=32)
    assert counted.gmacs == module.gmacs((64, 96))
    assert count_config(
        config | {"data": config["data"] | {"init_args": {"root": "nowhere"}}}
    ).evaluated.size == (
        64,
        128,
    )
    checkpoint: dict[str, Any] = {}
    module._evaluated_at = (64, 96)
    module.on_save_checkpoint(checkpoint)
    assert checkpoint[EVALUATED_AT] == [64, 96]
