"""What is said between a sweep and the processes of its runs. Imports no torch: the sweep needs none."""

import json
import multiprocessing
import multiprocessing.reduction
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.worker.survey import Check, Measure

LOG_FILE = "log.txt"
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
STOPPED_CHECKPOINT = Path("checkpoints/stopped.ckpt")
# what the fork server imports once, so that a run costs its training and not seconds of imports
PRELOAD_VARIABLE = "FOCAL_LAB_PRELOAD"
# keeps Python from putting the working directory in front of all other modules
SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"
_PRELOADED = ["focal_lab.sweep.worker.fork_server"]


@dataclass(frozen=True)
class Order:
    """What a child is told to do; plain values, because it travels to another process.

    Attributes:
        threads: how many CPU threads torch may use.
        devices: the GPUs that are the child's, as CUDA_VISIBLE_DEVICES names them; None to leave the choice
            to the configuration.
        git: state of the code at the start of the sweep.
        backbone_checkpoint: weights to start from, which another run of the sweep trained.
        rank, ranks, port: which process of how many this is, and where they meet.
        lock: the run's lock, which the child holds as long as it lives.
    """

    run: str
    task: str
    seed: int
    folder: str
    config: dict[str, Any]
    identity: dict[str, Any]
    config_hash: str
    threads: int
    git: dict[str, Any]
    devices: str | None = None
    backbone_checkpoint: str | None = None
    rank: int = 0
    ranks: int = 1
    port: int = 0
    lock: "SharedLock | None" = None


class SharedLock:
    """A lock that a child goes on holding, even when the process that took it is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherit_lock, (multiprocessing.reduction.DupFd(self.descriptor),)


def _inherit_lock(duplicate: Any) -> SharedLock:
    return SharedLock(duplicate.detach())


def order_of(
    run: Run,
    folder: Path,
    *,
    threads: int,
    git: Mapping[str, Any],
    devices: str | None = None,
    ranks: int = 1,
    lock: SharedLock | None = None,
) -> Order:
    """The order for a planned run, to the first of its processes."""
    return Order(
        run=run.id,
        task=run.task,
        seed=run.seed,
        folder=str(folder),
        config=run.config,
        identity=run.identity,
        config_hash=run.config_hash,
        threads=threads,
        devices=devices,
        ranks=ranks,
        git=dict(git),
        backbone_checkpoint=None if run.needs is None else str(trained_checkpoint(folder.parent / run.needs)),
        lock=lock,
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
    """Starts processes from a fork server that has torch and Lightning loaded.

    Args:
        runs: what is going to be trained; what the runs of a task need is loaded once for all of them.
        configs: the same, as configurations.
    """

    def __init__(self, runs: Iterable[Run] = (), configs: Iterable[Mapping[str, Any]] = ()) -> None:
        kinds = {run.task: run.config for run in runs}
        safe_path = os.environ.get(SAFE_PATH_VARIABLE)
        configured = [*kinds.values(), *configs]
        asked = {"parent": os.getpid(), "configs": configured, "safe_path": safe_path}
        self._server = {PRELOAD_VARIABLE: json.dumps(asked, default=str), SAFE_PATH_VARIABLE: "1"}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def train(self, order: Order) -> tuple[ForkServerProcess, Connection]:
        """Start a process of a run; the connection yields its messages and takes words to it."""
        return self._start(_train, order)

    def count_devices(self) -> int:
        """GPUs that torch sees here."""
        process, messages = self._start(_count_devices, None)
        try:
            return int(messages.recv())
        finally:
            process.kill()

    def convert(
        self, owners: Sequence[str], questions: Sequence[tuple[str, str, Any]]
    ) -> tuple[ForkServerProcess, Connection]:
        """Start converting values of configurations; the connection yields one message, see `convert`."""
        return self._start(_convert, (owners, questions))

    def measure(self, order: Check | Measure) -> tuple[ForkServerProcess, Connection]:
        """Start checking configurations, or measuring one; the connection yields what comes out."""
        return self._start(_survey, order)

    def _start(self, target: Any, order: Any) -> tuple[ForkServerProcess, Connection]:
        receiver, sender = self._context.Pipe(duplex=True)
        process = self._context.Process(target=target, args=(order, sender))
        # the server begins with the first process, and again if it was killed
        before = {name: os.environ.get(name) for name in self._server}
        os.environ.update(self._server)
        try:
            _ensure_server()
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        sender.close()
        return process, receiver


def _ensure_server() -> None:
    """Have a fork server that does not hear the terminal's Ctrl-C, also while it imports, for seconds.

    It inherits what is blocked here. The resource tracker, which it needs, sets and resets that by itself.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def last_lines(folder: Path, count: int = 20) -> list[str]:
    """The end of what a run printed."""
    try:
        with open(folder / LOG_FILE, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 16384))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    # not splitlines(): it also splits at \r, by which a progress bar draws itself anew
    return text.removesuffix("\n").split("\n")[-count:] if text else []


def _train(order: Order, connection: Connection) -> None:
    from focal_lab.sweep.worker.train import run_child

    run_child(order, connection)


def _count_devices(_: None, connection: Connection) -> None:
    from focal_lab.sweep.worker.train import join_parent

    join_parent()
    import torch

    connection.send(torch.cuda.device_count())


def _convert(asked: tuple[Sequence[str], Sequence[tuple[str, str, Any]]], connection: Connection) -> None:
    from focal_lab.sweep.worker.convert import convert_child

    convert_child(*asked, connection)


def _survey(order: Check | Measure, connection: Connection) -> None:
    from focal_lab.sweep.worker.measure import survey_child

    survey_child(order, connection)
