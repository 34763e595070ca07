"""Starts worker processes from a fork server that has torch, Lightning and the code of the runs loaded.

The process that uses it imports none of these: what a worker runs is named by its dotted path.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pkgutil import resolve_name
from typing import Any

from focal_lab.sweep.worker.request import CheckAnswer, CheckRequest, MeasureRequest, TrainRequest
from focal_lab.sweep.worker.signals import join_fork_server

# what the fork server is to load, as JSON; see `fork_server`
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
        return self._start(_train, request)

    def measure(self, request: MeasureRequest) -> tuple[ForkServerProcess, Connection]:
        """Start measuring a configuration; the one message is what `measure_steps.measure_run` returns."""
        return self._start(_send_result, "measure_steps:measure_run", request)

    def check(self, request: CheckRequest) -> CheckAnswer:
        """Check configurations, see `check.check_configs`."""
        answer: CheckAnswer = self._result("check:check_configs", request)
        return answer

    def convert(self, owners: Sequence[str], questions: Sequence[tuple[str, str, Any]]) -> Any:
        """What `convert_values.convert_all` returns."""
        return self._result("convert_values:convert_all", owners, questions)

    def _result(self, function: str, *arguments: Any) -> Any:
        process, connection = self._start(_send_result, function, *arguments)
        try:
            return connection.recv()
        except EOFError as error:
            process.join()
            raise RuntimeError(f"{function} failed (exit status {process.exitcode})") from error
        finally:
            process.kill()
            connection.close()

    def _start(self, body: Callable[..., None], *arguments: Any) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=body, args=(theirs, *arguments))
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


def _train(connection: Connection, request: TrainRequest) -> None:
    join_fork_server()
    resolve_name(f"{_WORKER}.train:train_run")(request, connection)


def _send_result(connection: Connection, function: str, *arguments: Any) -> None:
    join_fork_server()
    connection.send(resolve_name(f"{_WORKER}.{function}")(*arguments))
