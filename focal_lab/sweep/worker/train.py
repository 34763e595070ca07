"""The body of a run's process. Importing this module loads torch and Lightning: the fork server does it once.

Everything a run does wrong stays in its process: what it leaks or overwrites dies with it, its output goes
to `log.txt`, and its parent hears from it over a pipe.
"""

import datetime
import io
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import torch

from focal_lab.errors import UserError
from focal_lab.sweep.identity.user_code import refuse_changed_code
from focal_lab.sweep.run_folder.provenance import hardware, versions
from focal_lab.sweep.run_folder.result import FAILURE_FILE, Result, set_aside, write_result_once
from focal_lab.sweep.worker.protocol import (
    LAST_CHECKPOINT,
    LOG_FILE,
    STOPPED_CHECKPOINT,
    Order,
    with_checkpoint,
)
from focal_lab.sweep.worker.signals import die_with
from focal_lab.training.cost import count_config
from focal_lab.training.fit import Stopped, latest_checkpoint, resumable, train
from focal_lab.training.malloc import keep_freed_memory
from focal_lab.utils.file_lock import LOCK_FILE

# the last line in the log of whoever has trained a run to its end
TRAINED = "focal-lab: trained to the end."
_IMPORTED_BY = os.getpid()  # the fork server, see `server`


def run_child(order: Order, connection: Connection) -> None:
    """Train one run and write its result; or be one of several processes that do.

    Messages to the parent are (kind, value): `note` for something the user should know, `progress` for where
    training is, and last one of `finished`, `stopped` (why), `wrong` (the configuration: trying again is
    useless) and `failed`. The parent says `stop` or `prune`.
    """
    join_parent()
    ear = _Ear(connection)
    folder = Path(order.folder)
    redirect_output(folder / (LOG_FILE if order.rank == 0 else f"log-rank{order.rank}.txt"))
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    _set_environment(order)
    if order.rank == 0:
        (folder / LOCK_FILE).write_text(f"{os.getpid()}\n", encoding="utf-8")  # for people who look for it
    try:
        result = _train(order, folder, connection, ear)
        if order.rank == 0:
            first = write_result_once(folder, result)
            print(TRAINED if first else f"{TRAINED} Another process was first.", flush=True)
            (folder / FAILURE_FILE).unlink(missing_ok=True)
        connection.send(("finished", None))
    except Stopped as stopped:
        connection.send(("stopped", stopped.word))
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())
        if isinstance(error, UserError):
            connection.send(("wrong", reason))
        else:
            connection.send(("failed", f"{type(error).__name__}: {reason}"))
        raise SystemExit(1) from error


class _Ear:
    """Hears what the parent says, and SIGTERM, which means stop.

    Called at every step by the training; answers None or the word.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._word: str | None = None
        signal.signal(signal.SIGTERM, self._terminate)

    def __call__(self) -> str | None:
        if self._word is None and self._connection.poll():
            try:
                self._word = str(self._connection.recv())
            except (EOFError, OSError):
                self._word = "stop"
        return self._word

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._word = "stop"


def _train(order: Order, folder: Path, connection: Connection, ear: Callable[[], str | None]) -> Result:
    started = _now()
    refuse_changed_code(order.config, order.identity)
    counted = count_config(order.config)
    if order.backbone_checkpoint is not None and not Path(order.backbone_checkpoint).is_file():
        run = Path(order.backbone_checkpoint).parents[1]
        raise UserError(
            f"{order.backbone_checkpoint}: this run starts from it, and it does not exist any more "
            f"(remove {run} to train it again)"
        )
    trained = train(
        with_checkpoint(order.config, order.backbone_checkpoint),
        folder,
        resume_from=_find_checkpoint(folder, connection),
        listener=lambda message: connection.send(("progress", message)),
        stop=ear,
    )
    return Result(
        run=order.run,
        task=order.task,
        seed=order.seed,
        metrics=trained.metrics,
        params=counted.params,
        gmacs=counted.gmacs,
        image_size=list(counted.evaluated.size),
        image_size_from=counted.evaluated.source,
        train_seconds=trained.train_seconds,
        images_per_second=trained.images_per_second,
        peak_memory_mb=trained.peak_memory_mb,
        config_hash=order.config_hash,
        config=order.config,
        identity=order.identity,
        versions=versions(),
        git=order.git,
        hardware=hardware(),
        started=started,
        finished=_now(),
        validation=trained.validation,
        evaluated=trained.evaluated,
        tested_on=trained.tested_on,
    )


def _find_checkpoint(folder: Path, connection: Connection) -> Path | None:
    """The furthest checkpoint of an interrupted attempt; a damaged one is set aside and said."""
    for name in (LAST_CHECKPOINT, STOPPED_CHECKPOINT):
        checkpoint = folder / name
        if checkpoint.exists() and not resumable(checkpoint):
            kept = set_aside(checkpoint)
            connection.send(
                (
                    "note",
                    f"{checkpoint}: is not readable; set aside as {kept.name}, the run goes on without it",
                )
            )
    return latest_checkpoint(folder)


def _set_environment(order: Order) -> None:
    """Which GPUs are the run's, and where its processes meet."""
    if order.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.devices
    for name in [name for name in os.environ if name.startswith("SLURM_NTASKS")]:
        del os.environ[name]  # Lightning would take the sweep's tasks for the run's
    if order.ranks > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(order.port),
            "WORLD_SIZE": str(order.ranks),
            "NODE_RANK": "0",
            "LOCAL_RANK": str(order.rank),
        }


def join_parent() -> None:
    """Leave Ctrl-C to the parent, and die when the fork server dies, which it does with the parent."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        # as in any other training: data loaders' processes are forked, not made by one more server
        multiprocessing.set_start_method("fork", force=True)
        die_with(_IMPORTED_BY)


def redirect_output(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
