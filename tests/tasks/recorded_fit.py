"""Trainings by one or several processes, of which every loss and all weights are known afterwards."""

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from focal_lab.tasks.training import build

Answer = dict[str, Any]


class Record(Callback):
    """Keeps what a process saw: its losses, how many pictures it judged, metrics of each validation."""

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


def fit(
    config: dict[str, Any], folder: Path, resume_from: Path | None = None, extra: Callback | None = None
) -> Answer:
    """Train, and answer everything as plain values and arrays, which a pipe takes."""
    made, record = build(config, folder), Record()
    trainer: Any = made.trainer
    trainer.callbacks += [record] if extra is None else [record, extra]
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
    context.set_forkserver_preload(["focal_lab.tasks.training"])
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
