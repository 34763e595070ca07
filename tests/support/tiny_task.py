"""A training that takes half a second: a narrow focal network on a few digits."""

from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, Trainer

OPTIONS = {"embed_dim": 8, "depths": [1, 1, 1, 1]}


def tiny_config(
    *,
    trainer: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Any]:
    """A LightningCLI configuration: 2 epochs of 2 steps, but for what is given."""
    return {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": 2,
            "gradient_clip_val": 5.0,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
        }
        | (trainer or {}),
        "model": {
            "class_path": "focal_lab.tasks.Classification",
            "init_args": {
                "backbone": "focal_micro_patch2_window7_28",
                "backbone_options": OPTIONS | (options or {}),
                "num_classes": 10,
                "lr": 0.003,
            }
            | model,
        },
        "data": {
            "class_path": "focal_lab.data.DigitsClassification",
            "init_args": {
                "batch_size": 32,
                "num_train_images": 64,
                "num_val_images": 48,
                "num_test_images": 48,
            }
            | (data or {}),
        },
    }


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """The configuration as an experiment file."""
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What Lightning saved, read as Lightning reads it: plain values and tensors only."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


class InterruptionError(Exception):
    """Stands for whatever ends a process."""


class InterruptAfter(Callback):
    """Ends a training in the middle of the epoch after `epochs`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epochs:
            raise InterruptionError


def quiet_trainer(**options: Any) -> Trainer:
    """A trainer of one epoch on the CPU that writes nothing."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
        }
        | options
    )
