"""One attempt at a run: its worker processes, its lock, and their messages."""

import multiprocessing.connection
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.request import TrainRequest
from focal_lab.sweep.worker.signals import exit_reason
from focal_lab.utils.file_lock import FileLock

# Seconds that a process may take to exit after its last message.
_EXIT_SECONDS = 30.0


class Attempt:
    """A run in training: one worker process per device.

    Args:
        run: what is trained.
        number: which attempt it is, from 1.
        slot: which of the command's device slots it takes.
        lock: of the run, held until `close`.
        request: to the first process; the others get it with their rank.
        processes: where they come from.

    Attributes:
        ending: the first process's last message: `finished`, `stopped`, `wrong` or `failed`; None before.
        reason: why there will be no result, once that is known.
        last_message: when the latest message came, on the monotonic clock.
        requested: what the processes were asked: `stop` or `prune`.
        pruned_at: where the training was when it was asked to end because others are better.
        cut_off: whether it was killed because another machine may train the run now.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        slot: int,
        lock: FileLock,
        request: TrainRequest,
        processes: WarmProcesses,
    ) -> None:
        self.run, self.number, self.slot = run, number, slot
        self.ending: str | None = None
        self.reason: str | None = None
        self.requested: str | None = None
        self.pruned_at: str | None = None
        self.cut_off = False
        self.last_message = time.monotonic()
        self._lock = lock
        self._workers: list[tuple[ForkServerProcess, Connection]] = []
        self._closed: list[Connection] = []
        self._reason_of_others: str | None = None
        port = _free_port() if request.ranks > 1 else 0
        for rank in range(request.ranks):
            self._workers.append(processes.train(replace(request, rank=rank, port=port)))

    @property
    def sources(self) -> list[Any]:
        """What to wait for: messages, and processes that exit."""
        connections = [connection for _, connection in self._workers if connection not in self._closed]
        return [*connections, *(process.sentinel for process, _ in self._workers if process.exitcode is None)]

    def receive(self) -> Iterator[tuple[str, Any]]:
        """The progress and notes that have arrived; a last message becomes `ending` and `reason`."""
        for rank, (_, connection) in enumerate(self._workers):
            try:
                while connection not in self._closed and connection.poll():
                    kind, value = connection.recv()
                    self.last_message = time.monotonic()
                    if kind == "note" or (kind == "progress" and rank == 0):
                        yield kind, value
                    elif rank == 0:
                        self.ending = kind
                        self.reason = "its process was sent SIGTERM" if kind == "stopped" else value
                    elif kind in ("failed", "wrong"):
                        self._reason_of_others = f"process {rank}: {value}"
            except (EOFError, OSError):
                self._closed.append(connection)

    @property
    def ended(self) -> bool:
        """Whether the first process has exited or hangs after its last message, or another one has failed."""
        first, *others = [process.exitcode for process, _ in self._workers]
        if first is not None:
            return True
        if self.ending is not None:
            return time.monotonic() - self.last_message > _EXIT_SECONDS
        return any(others)

    def request(self, word: str) -> None:
        """Ask it to `stop`, with a checkpoint, or to `prune`, without one."""
        self.requested = self.requested or word
        for _, connection in self._workers:
            with suppress(OSError, ValueError):
                connection.send(word)

    def kill(self) -> None:
        """Kill its processes."""
        for process, _ in self._workers:
            process.kill()

    def close(self) -> str:
        """Kill remaining processes and release the run; returns why there is no result, if there is none."""
        list(self.receive())
        statuses = [process.exitcode for process, _ in self._workers]
        status = next((status for status in statuses if status), statuses[0])
        self.kill()
        for process, _ in self._workers:
            process.join()
        for process, connection in self._workers:
            connection.close()
            process.close()
        self._lock.release()
        return self.reason or self._reason_of_others or exit_reason(status)


def wait_for(attempts: list[Attempt], seconds: float) -> None:
    """Sleep until one of them sends a message or exits."""
    sources = [source for attempt in attempts for source in attempt.sources]
    if sources:
        multiprocessing.connection.wait(sources, seconds)
    else:
        time.sleep(seconds)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
