"""Training of one run in a worker process. Imports torch and Lightning, which the fork server has loaded.

Whatever goes wrong stays in this process: its memory is freed when it exits, its output goes to `log.txt`,
its messages go to the command through a pipe.
"""

import datetime
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from focal_lab.errors import UserError
from focal_lab.sweep.identity.run_ids import hash_of
from focal_lab.sweep.identity.user_code import refuse_changed_code
from focal_lab.sweep.run_folder.layout import (
    CONFIG_FILE,
    FAILURE_FILE,
    LAST_CHECKPOINT,
    LOCK_FILE,
    STOPPED_CHECKPOINT,
    log_file,
)
from focal_lab.sweep.run_folder.provenance import hardware, versions
from focal_lab.sweep.run_folder.result import Result, set_aside, write_result_once
from focal_lab.sweep.worker.request import TrainRequest
from focal_lab.training.cost import count_config
from focal_lab.training.fit import Stopped, latest_checkpoint, resumable, train
from focal_lab.training.malloc import keep_freed_memory
from focal_lab.utils.yaml import load_yaml

# the last line in the log of a run that was trained to its end
TRAINED = "focal-lab: trained to the end."


def train_run(request: TrainRequest, connection: Connection) -> None:
    """Train the run that `config.yaml` in a folder describes, and write its result.

    Messages to the command are (kind, value): `note` for the user, `progress` with where training is, and at
    last `finished`, `stopped` (with the request), `wrong` (the configuration: a retry is useless) or
    `failed`. The command sends `stop` or `prune`. Of several processes that train together, one writes the
    result.
    """
    stop = _StopRequests(connection)
    folder = Path(request.folder)
    redirect_output(log_file(folder, request.rank))
    torch.set_num_threads(request.threads)
    keep_freed_memory()
    _set_environment(request)
    if request.rank == 0:
        (folder / LOCK_FILE).write_text(f"{os.getpid()}\n", encoding="utf-8")  # for people who look for it
    try:
        result = _train(request, folder, connection, stop)
        if request.rank == 0:
            first = write_result_once(folder, result)
            print(TRAINED if first else f"{TRAINED} Another process finished first.", flush=True)
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


class _StopRequests:
    """Called by the training after every batch; returns `stop`, `prune` or None. SIGTERM means `stop`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received: str | None = None
        signal.signal(signal.SIGTERM, self._terminate)

    def __call__(self) -> str | None:
        if self._received is None and self._connection.poll():
            try:
                self._received = str(self._connection.recv())
            except (EOFError, OSError):
                self._received = "stop"
        return self._received

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._received = "stop"


def _train(request: TrainRequest, folder: Path, connection: Connection, stop: _StopRequests) -> Result:
    started = _now()
    config, identity = load_yaml(folder / CONFIG_FILE), request.identity
    recorded = _without_parent(config) if "needs" in identity else config
    refuse_changed_code(recorded, identity)
    counted = count_config(config)
    trained = train(
        config,
        folder,
        resume_from=_find_checkpoint(folder, connection),
        listener=lambda message: connection.send(("progress", message)),
        stop=stop,
    )
    return Result(
        run=folder.name,
        task=identity["task"],
        seed=identity["seed_everything"],
        metrics=trained.metrics,
        params=counted.params,
        gmacs=counted.gmacs,
        image_size=list(counted.evaluated.size),
        image_size_from=counted.evaluated.source,
        train_seconds=trained.train_seconds,
        images_per_second=trained.images_per_second,
        peak_memory_mb=trained.peak_memory_mb,
        config_hash=hash_of(identity),
        config=recorded,
        identity=identity,
        versions=versions(),
        git=request.git,
        hardware=hardware(),
        started=started,
        finished=_now(),
        validation=trained.validation,
        evaluated=trained.evaluated,
        tested_on=trained.tested_on,
    )


def _without_parent(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the path of the checkpoint of another run, which the identity names.

    Raises:
        UserError: the checkpoint was removed.
    """
    init_args = dict(config["model"]["init_args"])
    checkpoint = Path(init_args.pop("backbone_checkpoint"))
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: this run starts from it, and it does not exist any more "
            f"(remove {checkpoint.parents[1]} to train it again)"
        )
    return {**config, "model": {**config["model"], "init_args": init_args}}


def _find_checkpoint(folder: Path, connection: Connection) -> Path | None:
    """The latest checkpoint of an interrupted attempt. A damaged one is set aside, and the user notified."""
    for name in (LAST_CHECKPOINT, STOPPED_CHECKPOINT):
        checkpoint = folder / name
        if checkpoint.exists() and not resumable(checkpoint):
            kept = set_aside(checkpoint)
            note = f"{checkpoint}: is not readable; set aside as {kept.name}, the run continues without it"
            connection.send(("note", note))
    return latest_checkpoint(folder)


def _set_environment(request: TrainRequest) -> None:
    """Which GPUs the process sees, and where the processes of the run meet."""
    if request.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = request.devices
    for name in [name for name in os.environ if name.startswith("SLURM_NTASKS")]:
        del os.environ[name]  # Lightning would take the sweep's tasks for the run's
    if request.ranks > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(request.port),
            "WORLD_SIZE": str(request.ranks),
            "NODE_RANK": "0",
            "LOCAL_RANK": str(request.rank),
        }


def redirect_output(log: Path) -> None:
    """Append what this process prints to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
