"""The body of a run's process. Importing this module loads torch and Lightning: the fork server does it once.

Everything a run does wrong stays in its process: what it leaks or overwrites dies with it, its output goes
to `log.txt`, and its parent hears from it over a pipe.
"""

import ctypes
import datetime
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from focal_lab.ablation.engine.locks import LOCK_FILE, FileLock
from focal_lab.ablation.engine.orders import LAST_CHECKPOINT, LOG_FILE, Order, with_checkpoint
from focal_lab.ablation.provenance import hardware, versions
from focal_lab.ablation.result import FAILURE_FILE, Result, read_result, set_aside, write_record
from focal_lab.errors import UserError
from focal_lab.tasks.allocator import keep_freed_memory
from focal_lab.tasks.cost import count_config
from focal_lab.tasks.training import resumable, train

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_child(order: Order, connection: Connection) -> None:
    """Train one run and write its result.

    Messages to the parent are (kind, value): `note` for something the user should know, `progress` for where
    training is, and last one of `finished`, `elsewhere` (another process trains this run) and `failed`.
    """
    _join_parent()
    folder = Path(order.folder)
    folder.mkdir(parents=True, exist_ok=True)
    _redirect_output(folder / LOG_FILE)
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    if order.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(order.device)
    lock = FileLock(folder / LOCK_FILE)
    if not lock.acquire(wait=False):
        connection.send(("elsewhere", None))
        return
    lock.path.write_text(f"{os.getpid()}\n", encoding="utf-8")  # for people who look for the process
    try:
        if read_result(folder) is None:
            write_record(folder, _train(order, folder, connection))
            (folder / FAILURE_FILE).unlink(missing_ok=True)
        connection.send(("finished", None))
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())
        connection.send(
            ("failed", reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}")
        )
        raise SystemExit(1) from error


def count_child(configs: list[dict[str, Any]], connection: Connection) -> None:
    """Check and count configurations, a message for each.

    Messages are `counted` with (number, params, gmacs) or `wrong` with (number, why), and last `devices` with
    how many GPUs there are.
    """
    _join_parent()
    torch.set_num_threads(1)
    for number, config in enumerate(configs):
        try:
            params, gmacs = count_config(config)
        except UserError as error:
            connection.send(("wrong", (number, str(error))))
        else:
            connection.send(("counted", (number, params, gmacs)))
    connection.send(("devices", torch.cuda.device_count()))


def _train(order: Order, folder: Path, connection: Connection) -> Result:
    started = _now()
    params, gmacs = count_config(order.config)
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
    )
    return Result(
        run=order.run,
        task=order.task,
        seed=order.seed,
        metrics=trained.metrics,
        params=params,
        gmacs=gmacs,
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
    )


def _find_checkpoint(folder: Path, connection: Connection) -> Path | None:
    """The last checkpoint of an interrupted attempt; a damaged one is set aside and said."""
    checkpoint = folder / LAST_CHECKPOINT
    if not checkpoint.exists():
        return None
    if resumable(checkpoint):
        return checkpoint
    kept = set_aside(checkpoint)
    connection.send(("note", f"{checkpoint}: is not readable; set aside as {kept.name}, the run starts anew"))
    return None


def _join_parent() -> None:
    """Leave Ctrl-C to the parent, and die when the fork server dies, which it does with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _redirect_output(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
