"""What is said between a sweep and the processes of its runs. Imports no torch: the sweep needs none."""

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from focal_lab.ablation.runs import Run

LOG_FILE = "log.txt"
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
# what the fork server imports once, so that a run costs its training and not seconds of imports
_PRELOADED = ["focal_lab.ablation.engine.child"]


@dataclass(frozen=True)
class Order:
    """What a child is told to do; plain values, because it travels to another process.

    Attributes:
        threads: how many CPU threads torch may use.
        device: index of the GPU that is the child's, None to leave the choice to the configuration.
        git: state of the code at the start of the sweep.
        backbone_checkpoint: weights to start from, which another run of the sweep trained.
    """

    run: str
    task: str
    seed: int
    folder: str
    config: dict[str, Any]
    identity: dict[str, Any]
    config_hash: str
    threads: int
    device: int | None
    git: dict[str, Any]
    backbone_checkpoint: str | None = None


def order_of(run: Run, folder: Path, *, threads: int, device: int | None, git: Mapping[str, Any]) -> Order:
    """The order for a planned run."""
    return Order(
        run=run.id,
        task=run.task,
        seed=run.seed,
        folder=str(folder),
        config=run.config,
        identity=run.identity,
        config_hash=run.config_hash,
        threads=threads,
        device=device,
        git=dict(git),
        backbone_checkpoint=None if run.needs is None else str(trained_checkpoint(folder.parent / run.needs)),
    )


def trained_checkpoint(folder: Path) -> Path:
    """What a finished run has trained: its best checkpoint."""
    return folder / BEST_CHECKPOINT


def with_checkpoint(config: Mapping[str, Any], checkpoint: str | None) -> dict[str, Any]:
    """A configuration that starts from a checkpoint, if there is one."""
    if checkpoint is None:
        return dict(config)
    model = dict(config["model"])
    model["init_args"] = dict(model.get("init_args", {})) | {"backbone_checkpoint": checkpoint}
    return dict(config) | {"model": model}


class WarmProcesses:
    """Starts processes from a fork server that has torch and Lightning loaded."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def train(self, order: Order) -> tuple[ForkServerProcess, Connection]:
        """Start a run; the connection yields its messages."""
        return self._start(_train, order)

    def count(self, configs: Sequence[Mapping[str, Any]]) -> tuple[ForkServerProcess, Connection]:
        """Start checking and counting configurations; the connection yields what comes out."""
        return self._start(_count, [dict(config) for config in configs])

    def _start(self, target: Any, order: Any) -> tuple[ForkServerProcess, Connection]:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=target, args=(order, sender))
        process.start()
        sender.close()
        return process, receiver


def last_lines(folder: Path, count: int = 20) -> list[str]:
    """The end of what a run printed."""
    try:
        with open(folder / LOG_FILE, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 16384))
            return stream.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []


def _train(order: Order, connection: Connection) -> None:
    from focal_lab.ablation.engine.child import run_child

    run_child(order, connection)


def _count(configs: list[dict[str, Any]], connection: Connection) -> None:
    from focal_lab.ablation.engine.child import count_child

    count_child(configs, connection)
