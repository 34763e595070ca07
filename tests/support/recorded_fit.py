"""Trainings by one or several processes, of which every loss and all weights are known afterwards."""

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback
from PIL import Image
from support.tiny_task import tiny_config

from focal_lab.training.fit import build

Answer = dict[str, Any]
# 3 steps of 32 images an epoch, 9 are left over; neither 32 nor 2 processes divide those of validation
TRAIN, VAL = {"ant": 40, "bee": 40, "cat": 25}, {"ant": 7, "bee": 7, "cat": 7}

EVERY = {"class_path": "focal_lab.training.PeriodicCheckpoint", "init_args": {"every": 1}}


def write_pictures(root: Path) -> Path:
    """Noise in ImageNet's layout: root/train/ant/0.jpg, ..."""
    rng = np.random.default_rng(0)
    for split, counts in {"train": TRAIN, "val": VAL}.items():
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(256, size=(40, 48, 3)).astype(np.uint8)
                Image.fromarray(noise).save(root / split / name / f"{index}.jpg")
    return root


def folder_config(
    root: Path,
    *,
    batch_size: int,
    trainer: dict[str, Any] | None = None,
    drop_path: float = 0.0,
    **model: Any,
) -> dict[str, Any]:
    """2 epochs of augmented images, 32 a step, with a checkpoint each; the gradient is always clipped."""
    made = tiny_config(
        trainer={"gradient_clip_val": 0.5, "num_sanity_val_steps": 0, "callbacks": [EVERY]} | (trainer or {}),
        options={"drop_path_rate": drop_path},
        **{"num_classes": len(TRAIN), "total_batch_size": 32} | model,
    )
    made["data"] = {
        "class_path": "focal_lab.data.ImageFolderDataModule",
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


def assert_same_training(answer: Answer, other: Answer, tolerance: float = 1e-5) -> None:
    """Losses, metrics of every validation and weights are the same but for rounding."""
    assert answer["steps"] == other["steps"] == 6
    assert np.abs(np.subtract(answer["losses"], other["losses"])).max() < tolerance
    assert len(answer["metrics"]) == len(other["metrics"]) == 2
    for ours, theirs in zip(answer["metrics"], other["metrics"], strict=True):
        assert ours.keys() == theirs.keys() >= {"val/top1", "val/loss"}
        assert all(abs(ours[name] - theirs[name]) < tolerance for name in ours), (ours, theirs)
    assert answer["weights"].keys() == other["weights"].keys()
    for name, weight in answer["weights"].items():
        assert np.abs(weight - other["weights"][name]).max(initial=0) < tolerance, name


class Record(Callback):
    """Keeps what a process saw: its losses, how many images it evaluated, metrics of each validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.judged: list[int] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_validation_epoch_start(self, *_: Any) -> None:
        self.judged.append(0)

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.judged[-1] += int((batch[1] >= 0).sum())

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        values = trainer.callback_metrics.items()
        self.metrics.append({name: float(value) for name, value in values if name.startswith("val/")})


def fit(config: dict[str, Any], folder: Path, resume_from: Path | None = None) -> Answer:
    """Train, and answer everything as plain values and arrays, which a pipe takes."""
    made, record = build(config, folder), Record()
    trainer: Any = made.trainer
    trainer.callbacks.append(record)
    trainer.fit(made.model, made.datamodule, ckpt_path=str(resume_from) if resume_from else None)
    return {
        "losses": record.losses,
        "judged": record.judged,
        "metrics": record.metrics,
        "weights": {name: value.numpy() for name, value in made.model.state_dict().items()},
        "steps": trainer.global_step,
        "accumulated": trainer.accumulate_grad_batches,
    }


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function of a module answers in each of several processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["focal_lab.training.fit"])
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe()
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {
            "WORLD_SIZE": str(count),
            "NODE_RANK": "0",
            "LOCAL_RANK": str(rank),
            "RANK": str(rank),
        }
        order = (environment, os.getcwd(), function, arguments, theirs)
        process = context.Process(target=_answer, args=order, daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    answers = []
    for process, ours in started:
        assert ours.poll(120), "no answer"
        answers.append(ours.recv())
        process.join(60)
        assert process.exitcode == 0
    return answers


def _answer(
    environment: dict[str, str], cwd: str, function: Callable[..., Any], arguments: Any, answer: Connection
) -> None:
    warnings.simplefilter("ignore")
    os.chdir(cwd)
    os.environ |= environment
    os.environ.pop("PL_GLOBAL_SEED", None)
    torch.set_num_threads(1)
    answer.send(function(*arguments))
