import subprocess
import sys

import pytest
from support import ROOT
from support.tiny_task import tiny_config

from focal_lab.tasks.classification.task import Classification
from focal_lab.training.checkpoints.io import PeriodicCheckpoint
from focal_lab.training.lightning_cli import FocalCLI
from focal_lab.utils.lazy_imports import find_class


@pytest.mark.parametrize(
    "path", ["focal_lab.tasks.Classification", "focal_lab.tasks.classification.Classification"]
)
def test_class_paths_of_old_configurations_keep_working(path: str) -> None:
    every = {"init_args": {"every": 3}}
    old = every | {"class_path": "focal_lab.tasks.checkpoint_io.PeriodicCheckpoint"}
    config = tiny_config(trainer={"callbacks": [old]})
    config["model"]["class_path"] = path
    made = FocalCLI(config, run=False)
    assert type(made.model) is Classification
    assert any(type(callback) is PeriodicCheckpoint for callback in made.trainer.callbacks)


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("focal_lab.tasks.detection.Detection", "focal_lab.tasks.Detection"),
        ("focal_lab.tasks.segmentation.Segmentation", "focal_lab.tasks.Segmentation"),
        ("focal_lab.tasks.callbacks.StopWhenDiverged", "focal_lab.training.callbacks.StopWhenDiverged"),
        ("focal_lab.tasks.callbacks.LogLearningRate", "focal_lab.training.callbacks.LogLearningRate"),
        ("focal_lab.tasks.checkpoint_io.MovableCheckpoint", "focal_lab.training.MovableCheckpoint"),
        ("focal_lab.tasks.checkpoint_io.AtomicCheckpointIO", "focal_lab.training.AtomicCheckpointIO"),
    ],
)
def test_old_class_paths_are_the_classes_of_today(path: str, now: str) -> None:
    assert find_class(path) is find_class(now)


def test_the_package_of_tasks_is_imported_without_torch() -> None:
    code = "import sys, focal_lab.tasks, focal_lab.training.help; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"
