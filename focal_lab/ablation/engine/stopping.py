"""How a command is told to stop: by Ctrl-C, by SIGTERM, by a closed terminal."""

import signal
from types import FrameType
from typing import Self

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A second Ctrl-C: leave at once."""


class StopSignals:
    """While it lasts, the first signal only asks to stop; the second SIGINT raises Interrupted.

    Attributes:
        asked: whether somebody wants the command to stop.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        # who was started by nohup is not to end with the terminal
        asking = [n for n in _ASKING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise Interrupted
        self.asked = True


def exit_reason(status: int | None) -> str:
    """What a process's exit status says, when the process itself said nothing."""
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with status {status} and left no result"
