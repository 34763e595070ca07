"""Signals that stop a command and its worker processes, and what their exit statuses mean."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Self

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_IMPORTED_BY = os.getpid()  # in a worker process: the fork server


class Interrupted(KeyboardInterrupt):
    """A second Ctrl-C: exit at once."""


class StopSignals:
    """Context in which the first signal only requests a stop; a second SIGINT raises Interrupted.

    Args:
        on_request: called on the first signal, wherever the main thread is: it may be waiting for a database
            that hangs.

    Attributes:
        requested: whether the command is to stop.
        leaving: whether it is about to exit; another Ctrl-C does not interrupt that.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self._on_request = on_request
        self.requested = self.leaving = self._hurried = False

    def __enter__(self) -> Self:
        # a command started by nohup does not stop with the terminal
        handled = [n for n in _STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # Another Ctrl-C while the process prints its summary changes nothing. SIG_IGN, because Python
            # resets signals with a handler of its own when it exits, and the default action kills.
            hurried = self._hurried and number == signal.SIGINT
            signal.signal(number, signal.SIG_IGN if hurried else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT and not self.leaving:
            self._hurried = True
            raise Interrupted
        if not self.requested:
            self.requested = True
            self._on_request()


def join_fork_server() -> None:
    """Leave Ctrl-C to the command, and be killed with the fork server, which exits with the command."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        # as in any other training, a data loader's processes are forked, without another fork server
        multiprocessing.set_start_method("fork", force=True)
        exit_with(_IMPORTED_BY)


def exit_with(parent: int) -> None:
    """Be killed when the parent process exits, however it exits; at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def exit_reason(status: int | None) -> str:
    """Why a process that sent no reason ended, by its exit status."""
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process exited with status {status} and left no result"
