"""How a command is told to stop: Ctrl-C, SIGTERM, a closed terminal; and how its processes end with it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Self

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Interrupted(KeyboardInterrupt):
    """A second Ctrl-C: leave at once."""


class StopSignals:
    """While it lasts, the first signal only asks to stop; the second SIGINT raises Interrupted.

    Args:
        told: called with the first signal, from wherever the main thread is then: it may be waiting for a
            database that hangs.

    Attributes:
        asked: whether somebody wants the command to stop.
        leaving: whether it is on its way out; who presses Ctrl-C once more does not stop it there.
    """

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self._told = told
        self.asked = self.leaving = self._hurried = False

    def __enter__(self) -> Self:
        # who was started by nohup is not to end with the terminal
        asking = [n for n in _ASKING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # A Ctrl-C more, while the process says what came of it and ends, changes nothing. That must be
            # SIG_IGN: at its end Python gives signals with a handler of its own to the system, which kills.
            hurried = self._hurried and number == signal.SIGINT
            signal.signal(number, signal.SIG_IGN if hurried else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and not self.leaving:
            self._hurried = True
            raise Interrupted
        if not self.asked:
            self.asked = True
            self._told()


def die_with(parent: int) -> None:
    """Be killed when the parent dies, however it dies; now if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def exit_reason(status: int | None) -> str:
    """What a process's exit status says, when the process itself said nothing."""
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with status {status} and left no result"
