"""Two processes train what one trains with twice the batch: on pictures in folders, with gloo on the CPU."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_fit import Answer, fit, in_processes
from tiny_task import InterruptAfter, InterruptionError, tiny_config

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from pictures_world import class_folders

LAST = Path("checkpoints/last.ckpt")
TRAIN, VAL = {"ant": 40, "bee": 40, "cat": 25}, {"ant": 7, "bee": 7, "cat": 7}


def config(root: Path, *, batch_size: int, devices: int = 1, epochs: int = 2, **model: Any) -> dict[str, Any]:
    """3 steps of 32 pictures an epoch, each augmented; a gradient that is always clipped; a moving average."""
    several = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    made = tiny_config(
        trainer={"max_epochs": epochs, "gradient_clip_val": 0.5, "num_sanity_val_steps": 0} | several,
        options={"drop_path_rate": model.pop("drop_path_rate", 0.0)},
        **{"num_classes": len(TRAIN), "ema_decay": 0.5, "total_batch_size": 32} | model,
    )
    made["data"] = {
        "class_path": "focal_lab.data.image_folder.ImageFolderDataModule",
        "init_args": {
            "root": str(root),
            "image_size": 28,
            "batch_size": batch_size,
            "num_workers": 0,
            "auto_augment": "rand-m9-mstd0.5-inc1",
            "random_erasing": 0.25,
        },
    }
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    class_folders(folder / "train", TRAIN)
    class_folders(folder / "val", VAL)
    return folder


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    return in_processes(1, fit, config(root, batch_size=32), tmp_path_factory.mktemp("alone"))[0]


def assert_same_training(answer: Answer, other: Answer, tolerance: float = 1e-5) -> None:
    assert answer["steps"] == other["steps"] == 6
    assert np.abs(np.subtract(answer["losses"], other["losses"])).max() < tolerance
    assert len(answer["metrics"]) == len(other["metrics"]) == 2
    for ours, theirs in zip(answer["metrics"], other["metrics"], strict=True):
        assert ours.keys() == theirs.keys() >= {"val/top1", "val/ema_loss"}
        assert all(abs(ours[name] - theirs[name]) < tolerance for name in ours), (ours, theirs)
    assert answer["weights"].keys() == other["weights"].keys()
    for name, weight in answer["weights"].items():
        assert np.abs(weight - other["weights"][name]).max(initial=0) < tolerance, name


def test_two_processes_train_what_one_trains_with_twice_the_batch(root: Path, alone: Answer) -> None:
    first, second = in_processes(2, fit, config(root, batch_size=16, devices=2), Path("two"))
    for name, weight in first["weights"].items():
        assert np.array_equal(weight, second["weights"][name]), name
    assert first["losses"] != second["losses"]
    assert_same_training(first | {"losses": np.mean([first["losses"], second["losses"]], 0)}, alone)


def test_accumulated_batches_train_what_one_batch_trains(root: Path, alone: Answer) -> None:
    parts = in_processes(1, fit, config(root, batch_size=16), Path("accumulated"))[0]
    assert parts["accumulated"] == 2
    assert_same_training(parts | {"losses": np.mean(np.reshape(parts["losses"], (-1, 2)), 1)}, alone)
