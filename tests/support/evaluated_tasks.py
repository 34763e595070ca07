"""Tests and predictions of networks as they are initialised, by one or several processes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from focal_lab.tasks.tested import CountTested, describe_test_set
from focal_lab.training.fit import build

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
    """Metrics of a test, what it was tested on, and what is predicted, as plain values."""
    config = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 1} | trainer,
        "model": MODELS[task],
        "data": data,
    }
    made, count = build(config, folder), CountTested()
    running, model = made.trainer, made.model
    running.callbacks.append(count)  # type: ignore[attr-defined]
    if task == "detection":  # an untrained detector finds nothing
        model._evaluate = lambda batch, metric: metric.update([_found(one) for one in batch[1]], batch[1])
    (metrics,) = running.test(model, made.datamodule, verbose=False)
    reported = describe_test_set(running, made.datamodule, count.count)
    running.predict(model, made.datamodule, return_predictions=False)
    return {"metrics": dict(metrics), "tested_on": reported}


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


def predicted(folder: Path) -> dict[str, Any]:
    """All that was predicted in a folder, by any process, by image: rows, or a mask's content."""
    rows: dict[str, Any] = {}
    for path in sorted(folder.glob("predictions*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                rows.setdefault(f"{row['index']} {row['file']}", []).append((row["rank"], row["class"]))
    for path in sorted(folder.glob("predictions*.json")):
        for one in json.loads(path.read_text()):
            rows.setdefault(f"{one['image_id']} {one['file_name']}", []).append(one["bbox"])
    for path in sorted((folder / "masks").glob("*.png")):
        rows[path.name] = np.asarray(Image.open(path)).tolist()
    return rows
