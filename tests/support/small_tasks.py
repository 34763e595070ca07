"""Small detectors and segmenters on the embedded digits, with the data that they take."""

from typing import Any, TypeVar

import torch

from focal_lab.data.digits.scenes import DigitsDetection, DigitsSegmentation
from focal_lab.tasks.base import Task
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.segmentation.task import Segmentation

AnyTask = TypeVar("AnyTask", bound=Task)
OPTIONS = {"img_size": 64}
BACKBONES: dict[str, dict[str, Any]] = {
    "focal_micro": OPTIONS,
    "resnet18": {},
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "depths": [1, 1, 1, 1], "embed_dim": 24},
}
DATA = {
    "num_train_images": 4,
    "num_val_images": 2,
    "num_test_images": 2,
    "batch_size": 2,
    "image_size": 64,
    "largest": 32,
    "seed": 0,
}


def small_detector(method: str, **model: Any) -> Detection:
    torch.manual_seed(0)
    chosen = {"backbone_options": OPTIONS, "num_classes": 10, "pyramid_channels": 16, "head_width": 16}
    return Detection(method, "focal_micro", **chosen | model)


def small_segmenter(decoder: str = "upernet", backbone: str = "focal_micro", **model: Any) -> Segmentation:
    torch.manual_seed(0)
    chosen = {
        "backbone_options": BACKBONES[backbone],
        "num_classes": 11,
        "decoder_channels": 32,
        "auxiliary_channels": 8,
        "test_size": None,
        "warmup_steps": 0,
    }
    return Segmentation(backbone, decoder, **chosen | model)


def detection_data(**options: Any) -> DigitsDetection:
    return DigitsDetection(**DATA | options)


def segmentation_data(**options: Any) -> DigitsSegmentation:
    return DigitsSegmentation(**DATA | options)


def silent(task: AnyTask) -> AnyTask:
    """The task without a trainer, logging nothing."""
    task.log = task.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return task
