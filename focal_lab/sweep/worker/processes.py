"""Starts worker processes from a fork server that has torch, Lightning and the code of the runs loaded.

The process that uses it imports none of these: what a worker runs is named by its dotted path.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pkgutil import resolve_name
from typing import Any

from focal_lab.sweep.worker.request import CheckRequest, MeasureRequest, TrainRequest
from focal_lab.sweep.worker.signals import join_fork_server

# what the fork server is to load, as JSON; see `server`
PRELOAD_VARIABLE = "FOCAL_LAB_PRELOAD"
# keeps Python from putting the working directory in front of all other modules
SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"
_WORKER = "focal_lab.sweep.worker"


class WarmProcesses:
    """Starts processes from a fork server, so that a run costs its training and not seconds of imports.

    Args:
        configs: of the runs. For one of each class of model the fork server loads code and data.
    """

    def __init__(self, configs: Iterable[Mapping[str, Any]] = ()) -> None:
        kinds = {repr(config["model"]["class_path"]): config for config in configs}
        safe_path = os.environ.get(SAFE_PATH_VARIABLE)
        asked = {"parent": os.getpid(), "configs": list(kinds.values()), "safe_path": safe_path}
        self._server = {PRELOAD_VARIABLE: json.dumps(asked, default=str), SAFE_PATH_VARIABLE: "1"}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([f"{_WORKER}.fork_server"])

    def train(self, request: TrainRequest) -> tuple[ForkServerProcess, Connection]:
        """Start a process of a run; see `train.train_run` for the messages of the connection."""
        return self._start("train:train_run", request)

    def check(self, request: CheckRequest) -> tuple[ForkServerProcess, Connection]:
        """Start checking configurations; see `CheckRequest` for the messages of the connection."""
        return self._start("check:check_configs", request)

    def measure(self, request: MeasureRequest) -> tuple[ForkServerProcess, Connection]:
        """Start measuring a configuration; see `MeasureRequest` for the messages of the connection."""
        return self._start("measure:measure_run", request)

    def convert(self, owners: Sequence[str], questions: Sequence[tuple[str, str, Any]]) -> Any:
        """What `convert_values.convert_all` returns.

        Raises:
            RuntimeError: the process was killed.
        """
        return self._result("convert_values:send_converted", (owners, questions))

    def count_devices(self) -> int:
        """GPUs that torch sees here."""
        return int(self._result("processes:_send_device_count", None))

    def _result(self, function: str, request: Any) -> Any:
        """The one message of a process."""
        process, connection = self._start(function, request)
        try:
            return connection.recv()
        except EOFError as error:
            process.join()
            raise RuntimeError(f"{function} failed (exit status {process.exitcode})") from error
        finally:
            process.kill()
            connection.close()

    def _start(self, function: str, request: Any) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=_work, args=(f"{_WORKER}.{function}", request, theirs))
        # the server starts with the first process, and again if it was killed
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
        theirs.close()
        return process, ours


def _ensure_server() -> None:
    """Start a fork server that ignores the terminal's Ctrl-C, also during its seconds of imports.

    It inherits the signals that are blocked here; the resource tracker, which it needs, resets them.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: str, request: Any, connection: Connection) -> None:
    join_fork_server()
    resolve_name(function)(request, connection)


def _send_device_count(_: None, connection: Connection) -> None:
    import torch

    connection.send(torch.cuda.device_count())
