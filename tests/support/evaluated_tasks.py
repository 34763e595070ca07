"""Tests of networks as they are initialised, by one or several processes."""

from pathlib import Path
from typing import Any

import torch

from focal_lab.tasks.tested import CountTested, describe_test_set
from focal_lab.training.fit import build
from focal_lab.training.predictions import KeepPredictions

Answer = dict[str, Any]
NETWORK = {
    "backbone": "focal_micro_patch2_window7_28",
    "backbone_options": {"embed_dim": 8, "depths": [1, 1, 1, 1]},
}
MODELS: dict[str, dict[str, Any]] = {
    "classification": {"class_path": "focal_lab.tasks.Classification", "init_args": NETWORK},
    "detection": {
        "class_path": "focal_lab.tasks.Detection",
        "init_args": NETWORK | {"method": "retinanet", "pyramid_channels": 8, "warmup_steps": 0},
    },
    "segmentation": {
        "class_path": "focal_lab.tasks.Segmentation",
        "init_args": NETWORK | {"decoder": "upernet", "decoder_channels": 8, "warmup_steps": 0},
    },
}


def evaluate(task: str, data: dict[str, Any], folder: Path, **trainer: Any) -> Answer:
    """Metrics of a test, what it was tested on and its predictions, as plain values and arrays."""
    config = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 1} | trainer,
        "model": MODELS[task],
        "data": data,
    }
    made, count, kept = build(config, folder), CountTested(), KeepPredictions()
    running, model = made.trainer, made.model
    running.callbacks.extend([count, kept])  # type: ignore[attr-defined]
    if task == "detection":  # an untrained detector finds nothing
        model._evaluate = lambda batch, metric: metric.update([_found(one) for one in batch[1]], batch[1])
    (metrics,) = running.test(model, made.datamodule, verbose=False)
    reported = describe_test_set(running, made.datamodule, count.count)
    return {"metrics": dict(metrics), "tested_on": reported, "predictions": kept.arrays}


def _found(truth: Any) -> Any:
    """What a detector might find in an image, by the image's number: some objects, some of them astray."""
    drawn = torch.Generator().manual_seed(int(truth["image_id"]))
    count = len(truth["labels"])
    astray = torch.randn(count, 4, generator=drawn) * 3
    return {
        "boxes": truth["boxes"] + astray,
        "labels": truth["labels"],
        "scores": torch.rand(count, generator=drawn),
    }
