"""Detection and segmentation start from the backbone that their classification run has trained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_project import write, write_sweep
from test_sweep_end_to_end import EXPERIMENT

from focal_lab.sweep.plan.plan import make_plan
from focal_lab.utils.yaml import load_yaml

DETECTION = """\
trainer: {max_epochs: 1}
model:
  class_path: focal_lab.tasks.Detection
  init_args:
    method: retinanet
    backbone: focal_micro
    backbone_options: {embed_dim: 8, depths: [1, 1, 1, 1], img_size: 64}
    num_classes: 10
    pyramid_channels: 8
    lr: 1e-12
    min_lr: 0.0
    weight_decay: 0
    warmup_steps: 0
data:
  class_path: focal_lab.data.DigitsDetection
  init_args: {image_size: 64, batch_size: 2, num_train_images: 2, num_val_images: 2, num_test_images: 2}
"""
SEGMENTATION = """\
trainer: {max_epochs: 1}
model:
  class_path: focal_lab.tasks.Segmentation
  init_args:
    backbone: focal_micro
    backbone_options: {embed_dim: 8, depths: [1, 1, 1, 1], img_size: 64}
    num_classes: 11
    decoder_channels: 8
    auxiliary_channels: 8
    test_size: null
    lr: 1e-12
    min_lr: 0.0
    weight_decay: 0
    warmup_steps: 0
data:
  class_path: focal_lab.data.DigitsSegmentation
  init_args: {image_size: 64, batch_size: 2, num_train_images: 2, num_val_images: 2, num_test_images: 2}
"""
TASKS = ("--tasks", "classification", "detection")


@pytest.fixture
def chained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with both tasks; the folder of its runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write("experiments/digits/classification.yaml", EXPERIMENT)
    write("experiments/digits/detection.yaml", DETECTION)
    write("experiments/digits/segmentation.yaml", SEGMENTATION)
    return Path("runs")


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focal_lab.cli", "sweep", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def weights(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return state


def test_heads_start_from_the_classification_run(chained: Path) -> None:
    path = write_sweep(factors={"focal_levels": [1, 2]}, seeds=1, columns=["top1", "ap_box"])
    tasks = (*TASKS, "segmentation")
    first = sweep(str(path), *tasks)
    assert first.returncode == 0, first.stderr
    assert "6 runs: 6 trained, 0 reused" in first.stderr
    assert "mIoU (%)" in first.stdout  # a task that is trained is shown
    for child in make_plan(path, tasks=tasks[1:]).runs:
        if child.needs is None:
            continue
        parent, trained = weights(chained / child.needs), weights(chained / child.id)
        name = "layers.0.blocks.0.mlp.fc1.weight"
        # the learning rate is next to nothing: what was trained is what it started from
        prefix = {"detection": "model.backbone.body.model", "segmentation": "model.features.model"}[
            child.task
        ]
        torch.testing.assert_close(trained[f"{prefix}.{name}"], parent[f"model.{name}"])
        result = json.loads((chained / child.id / "result.json").read_text())
        assert "backbone_checkpoint" not in result["config"]["model"]["init_args"]
        assert ("ap_box" if child.task == "detection" else "miou") in result["metrics"]
        # the process of the run reads the checkpoint from its config.yaml, as `focal-lab fit` does
        config = load_yaml(chained / child.id / "config.yaml")
        checkpoint = str(chained / child.needs / "checkpoints" / "best.ckpt")
        assert config["model"]["init_args"].pop("backbone_checkpoint") == checkpoint
        assert config == result["config"]
    second = sweep(str(path), *tasks)
    assert "6 runs: 0 trained, 6 reused" in second.stderr


def test_a_failed_parent_fails_its_child_with_the_reason_and_a_removed_checkpoint_is_reported(
    chained: Path,
) -> None:
    path = str(write_sweep(factors={"classification.model.lr": [1e30, 3e-3]}, seeds=1, columns=["top1"]))
    first = sweep(path, *TASKS, "--set", "classification.trainer.max_epochs=4")
    assert first.returncode == 1, first.stderr
    assert "2 trained, 0 reused, 2 failed" in first.stderr
    reasons = [json.loads(file.read_text())["reason"] for file in chained.glob("*/failure.json")]
    (reported,) = [reason for reason in reasons if "it starts from failed" in reason]
    assert "the loss is" in reported
    (finished,) = [
        file.parent
        for file in chained.glob("*/result.json")
        if json.loads(file.read_text())["task"] == "classification"
    ]
    for file in chained.glob("*/result.json"):
        if file.parent != finished:
            shutil.rmtree(file.parent)
    (finished / "checkpoints" / "best.ckpt").unlink()
    second = sweep(path, *TASKS, "--set", "classification.trainer.max_epochs=4")
    assert "does not exist any more" in second.stderr
    assert f"remove {chained / finished.name} to train it again" in " ".join(second.stderr.split())
