"""One attempt at a run: its processes, its lock, what they said last."""

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
from focal_lab.sweep.worker.protocol import Order, WarmProcesses
from focal_lab.sweep.worker.signals import exit_reason
from focal_lab.utils.file_lock import FileLock

# Seconds that a process may take to end after its last words.
_TO_EXIT = 30.0


class Attempt:
    """A run in progress: one process a device.

    Args:
        run: what is trained.
        number: which attempt at it, from 1.
        slot: which of the command's places it takes.
        lock: the run's lock, held until `close`.
        order: to the first process; the others get it with their rank.
        processes: where they come from.

    Attributes:
        verdict: `finished`, `stopped`, `wrong` or `failed` as the first process has said, None before.
        reason: what it added.
        heard: when it was heard last, on the monotonic clock.
        told: what it was told to do: `stop` or `prune`.
        pruned_at: where it was when it was told to end because others are better.
        cut_off: whether it was ended because the run is not ours any more.
    """

    def __init__(
        self, run: Run, number: int, slot: int, lock: FileLock, order: Order, processes: WarmProcesses
    ) -> None:
        self.run, self.number, self.slot = run, number, slot
        self.verdict: str | None = None
        self.reason: str | None = None
        self.told: str | None = None
        self.pruned_at: str | None = None
        self.cut_off = False
        self.heard = time.monotonic()
        self._lock = lock
        self._ranks: list[tuple[ForkServerProcess, Connection]] = []
        self._silent: list[Connection] = []
        self._said_by_others: str | None = None
        port = _free_port() if order.ranks > 1 else 0
        for rank in range(order.ranks):
            self._ranks.append(processes.train(replace(order, rank=rank, port=port)))

    @property
    def sources(self) -> list[Any]:
        """What to wait for."""
        open_ends = [talk for _, talk in self._ranks if talk not in self._silent]
        return [*open_ends, *(process.sentinel for process, _ in self._ranks if process.exitcode is None)]

    def receive(self) -> Iterator[tuple[str, Any]]:
        """Messages that are there, but for the last words, which are remembered."""
        for rank, (_, talk) in enumerate(self._ranks):
            try:
                while talk not in self._silent and talk.poll():
                    kind, value = talk.recv()
                    self.heard = time.monotonic()
                    if kind in ("progress", "note"):
                        if rank == 0 or kind == "note":
                            yield kind, value
                    elif rank == 0:
                        self.verdict = kind
                        self.reason = "its process was sent SIGTERM" if kind == "stopped" else value
                    elif kind in ("failed", "wrong"):
                        self._said_by_others = f"process {rank}: {value}"
            except (EOFError, OSError):
                self._silent.append(talk)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be expected of it: its first process is gone, or another one died."""
        first, *others = [process.exitcode for process, _ in self._ranks]
        if first is not None:
            return True
        if self.verdict is not None:
            return time.monotonic() - self.heard > _TO_EXIT
        return any(others)

    def tell(self, word: str) -> None:
        """Ask it to `stop`, with a checkpoint, or to end for `prune`."""
        self.told = self.told or word
        for _, talk in self._ranks:
            with suppress(OSError, ValueError):
                talk.send(word)

    def kill(self) -> None:
        """End it now."""
        for process, _ in self._ranks:
            process.kill()

    def close(self) -> str:
        """End what is left of it and release the run; why there is no result, if there is none."""
        list(self.receive())
        statuses = [process.exitcode for process, _ in self._ranks]
        status = next((status for status in statuses if status), statuses[0])
        self.kill()
        for process, _ in self._ranks:
            process.join()
        for process, talk in self._ranks:
            talk.close()
            process.close()
        self._lock.release()
        return self.reason or self._said_by_others or exit_reason(status)


def wait_for(attempts: list[Attempt], seconds: float) -> None:
    """Sleep until one of them says something or ends."""
    sources = [source for attempt in attempts for source in attempt.sources]
    if sources:
        multiprocessing.connection.wait(sources, seconds)
    else:
        time.sleep(seconds)


def _free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
