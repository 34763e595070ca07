"""Trainings of a second or two, of each task, on the embedded digits."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from focal_lab import cli

# The smallest focal networks: one block, and one block a stage.
BLOCK = {
    "embed_dim": 8,
    "depths": [1],
    "num_heads": [1],
    "window_size": [7],
    "expand_sizes": [3],
    "focal_levels": [2],
    "focal_windows": [3],
}
NARROW = {"embed_dim": 8, "depths": [1, 1, 1, 1]}
FOCAL = "focal_micro_patch2_window7_28"
_TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Classification": ({"num_classes": 10}, {"num_train_images": 64, "batch_size": 32}),
    "Detection": (
        {"num_classes": 10, "method": "retinanet", "pyramid_channels": 32, "warmup_steps": 0},
        {"num_train_images": 4, "batch_size": 2, "image_size": 64, "largest": 36},
    ),
    "Segmentation": (
        {"num_classes": 11, "decoder": "fpn", "decoder_channels": 32, "warmup_steps": 0, "test_size": None},
        {"num_train_images": 4, "batch_size": 2, "image_size": 64, "largest": 36},
    ),
}


def train(folder: Path, task: str, backbone: str, options: dict[str, Any] | None = None, **more: Any) -> Path:
    """Train a task for one epoch; its folder, which is laid out as a run's.

    Args:
        folder: made for it.
        task: the name of its class.
        backbone: timm's name.
        options: of the backbone.
        more: other options of the task.
    """
    model, data = _TASKS[task]
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(folder),
        },
        "model": {
            "class_path": f"focal_lab.tasks.{task}",
            "init_args": model | {"backbone": backbone, "backbone_options": options} | more,
        },
        "data": {
            "class_path": "focal_lab.data.DigitsClassification"
            if task == "Classification"
            else f"focal_lab.data.Digits{task}",
            "init_args": data | {"num_val_images": 4, "num_test_images": 4},
        },
    }
    folder.mkdir(parents=True)
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert cli.main(["fit", "--config", str(path)]) == 0
    return folder


def export(*argv: object) -> int:
    """`focal-lab export`; its exit status."""
    return cli.main(["export", *map(str, argv)])


def noise(count: int, size: int) -> torch.Tensor:
    """Square images of noise, (count, 3, size, size), always the same ones."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def save_pictures(folder: Path, *names: str, size: tuple[int, int] = (40, 30)) -> list[Path]:
    """Images of noise of that width and height; whose name begins with "damaged" is cut off."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        if name.startswith("damaged"):
            (folder / name).write_bytes((folder / name).read_bytes()[:200])
    return [folder / name for name in names]
