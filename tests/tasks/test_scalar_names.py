"""What a run calls its curves is the same in all tasks, so that TensorBoard lays them side by side."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.sweep.spec.sweep_file import TASKS
from focal_lab.tasks.image_callbacks import SHOWN
from focal_lab.training.fit import train
from focal_lab.utils.yaml import load_yaml

EXPERIMENTS = ROOT / "experiments/digits"


def short(task: str) -> dict[str, Any]:
    """The experiment of the digits suite, two steps long."""
    config = load_yaml(EXPERIMENTS / f"{task}.yaml")
    config["trainer"] |= {"max_epochs": 1, "log_every_n_steps": 1, "accelerator": "cpu"}
    config["data"]["init_args"] |= {
        "num_train_images": 8,
        "num_val_images": SHOWN,
        "num_test_images": 4,
        "batch_size": 4,
    }
    warmup = "warmup_epochs" if task == "classification" else "warmup_steps"
    config["model"]["init_args"][warmup] = 0
    if task == "classification":  # whose average has curves of its own
        config["model"]["init_args"]["ema_decay"] = 0.9
    return config


@pytest.mark.parametrize("task", TASKS)
def test_every_task_names_its_curves_and_images_alike(task: str) -> None:
    metrics = train(short(task), Path("run")).metrics
    (file,) = Path("run").glob("events.out.tfevents.*")
    tags = {
        value.tag: event.step
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
        if not value.tag.startswith("_hparams_/")
    }
    expected = {"epoch", "lr", "train/loss"}
    expected |= {f"{split}/{name}" for split in ("val", "test") for name in metrics}
    expected |= {f"val/picture_{place}" for place in range(SHOWN)}
    assert expected <= set(tags)
    assert {name.partition("/")[0] for name in tags} <= {
        "epoch",
        "lr",
        "train",
        "val",
        "test",
        "test_per_class",
    }
    # what a table can show is there under its own name, at the step where the training ended
    shown = {f"test/{key}" for key, column in COLUMNS.items() if column.task == task}
    assert {tags[name] for name in shown} == {2}
