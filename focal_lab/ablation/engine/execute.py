"""Trains what is missing of a plan: one child process a run, claimed from the queue, watched to its end."""

import datetime
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from focal_lab.ablation.engine.locks import LOCK_FILE, is_locked
from focal_lab.ablation.engine.orders import (
    WarmProcesses,
    last_lines,
    order_of,
    trained_checkpoint,
    with_checkpoint,
)
from focal_lab.ablation.engine.queue import RunQueue
from focal_lab.ablation.outcomes import State, read_outcome
from focal_lab.ablation.plan import Plan
from focal_lab.ablation.provenance import git_state
from focal_lab.ablation.result import (
    CONFIG_FILE,
    RESULT_FILE,
    Failure,
    read_failure,
    set_aside,
    write_atomic,
    write_record,
)
from focal_lab.ablation.runs import Run
from focal_lab.ablation.yaml_file import dump_yaml

# how often the loop looks up when nothing happens, in seconds
_TICK = 0.5


class View(Protocol):
    """Who is told what happens; see `progress`."""

    def reused(self, run: Run) -> None: ...
    def started(self, run: Run) -> None: ...
    def progressed(self, run: Run, message: Mapping[str, Any]) -> None: ...
    def ended(self, run: Run, state: State, reason: str | None) -> None: ...
    def noted(self, text: str) -> None: ...
    def tick(self) -> None: ...


@dataclass
class Summary:
    """How a sweep ended: run ids by what became of them."""

    reused: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass
class _Training:
    """A run in progress."""

    run: Run
    process: ForkServerProcess
    messages: Connection
    slot: int
    reason: str | None = None
    verdict: str | None = None


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived."""


class Execution:
    """One command's share in a sweep.

    Args:
        plan: what is needed.
        out: folder of the runs.
        workers: runs trained at the same time.
        threads: CPU threads of each.
        devices: GPUs, given to the workers in turn.
        processes: where children come from.
        view: who is told.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        *,
        workers: int,
        threads: int,
        devices: int,
        processes: WarmProcesses,
        view: View,
    ) -> None:
        self.plan, self.out, self.view, self.processes = plan, out, view, processes
        self.workers, self.threads, self.devices = workers, threads, devices
        self.summary = Summary()
        self._runs = {run.id: run for run in plan.distinct_runs}
        self._open = dict(self._runs)
        self._training: list[_Training] = []

    def run(self) -> Summary:
        """Train until no run of the plan is open. Stopped by a signal, it ends its children and says so."""
        for run in list(self._open.values()):
            outcome = read_outcome(self.out / run.id)
            if outcome.state is State.CORRUPT:
                damaged = self.out / run.id / RESULT_FILE
                kept = set_aside(damaged)
                self.view.noted(
                    f"{damaged}: {outcome.problem}; set aside as {kept.name}, the run is trained again"
                )
            elif outcome.state is State.FINISHED:
                self.summary.reused.append(run.id)
                self.view.reused(run)
                del self._open[run.id]
        if not self._open:
            return self.summary
        queue = RunQueue(self.out, self.plan.study)
        queue.fill(self._ready())
        with _signals_interrupt():
            try:
                self._loop(queue)
            except Interrupted:
                self.summary.interrupted = True
            finally:
                self._stop_children(queue)
        return self.summary

    def _loop(self, queue: RunQueue) -> None:
        last_look = 0.0
        while self._open:
            while len(self._training) < self.workers:
                run_id = queue.claim()
                if run_id is None:
                    break
                self._claimed(run_id, queue)
            if not self._training and time.monotonic() - last_look > 5 * _TICK:
                last_look = time.monotonic()
                self._look_elsewhere(queue)
            self._listen(queue)
            self.view.tick()

    def _claimed(self, run_id: str, queue: RunQueue) -> None:
        run = self._open.get(run_id)
        folder = self.out / run_id
        if run is None or (folder / RESULT_FILE).exists():
            queue.finish(run_id, None)
            if run is not None:
                self._close(run, self.summary.elsewhere, queue)
            return
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = None if run.needs is None else str(trained_checkpoint(self.out / run.needs))
        write_atomic(folder / CONFIG_FILE, dump_yaml(with_checkpoint(run.config, checkpoint)))
        slot = min(set(range(self.workers)) - {training.slot for training in self._training})
        device = slot % self.devices if self.devices else None
        order = order_of(run, folder, threads=self.threads, device=device, git=git_state())
        process, messages = self.processes.train(order)
        self._training.append(_Training(run, process, messages, slot))
        self.view.started(run)

    def _listen(self, queue: RunQueue) -> None:
        """Wait for messages or ends of children, a tick at most."""
        watched: dict[Any, _Training] = {}
        for training in self._training:
            watched[training.messages] = training
            watched[training.process.sentinel] = training
        if not watched:
            time.sleep(_TICK)
            return
        ready = multiprocessing.connection.wait(list(watched), _TICK)
        for training in {id(watched[source]): watched[source] for source in ready}.values():
            if not self._receive(training, queue):
                self._ended(training, queue)

    def _receive(self, training: _Training, queue: RunQueue) -> bool:
        """Take all messages that are there; False when the child has closed its end."""
        try:
            while training.messages.poll():
                kind, value = training.messages.recv()
                if kind == "progress":
                    self.view.progressed(training.run, value)
                    if value.get("validated") and value.get("metric") is not None:
                        queue.report(training.run.id, value["metric"], value["step"])
                elif kind == "note":
                    self.view.noted(value)
                else:
                    training.verdict, training.reason = kind, value
        except (EOFError, OSError):
            return False
        return True

    def _ended(self, training: _Training, queue: RunQueue) -> None:
        training.process.join()
        self._training.remove(training)
        run, folder = training.run, self.out / training.run.id
        if training.verdict == "elsewhere":
            queue.finish(run.id, None)
            return
        # an exit status proves nothing: result.json, or it did not happen
        outcome = read_outcome(folder)
        if outcome.result is not None:
            queue.finish(run.id, next(iter(outcome.result.metrics.values())))
            self._close(run, self.summary.trained, queue)
            return
        queue.finish(run.id, None)
        self._fail(run, training.reason or _exit_reason(training.process.exitcode), queue)

    def _fail(self, run: Run, reason: str, queue: RunQueue) -> None:
        """Record why a run has no result; those that need it have none for the same reason."""
        folder = self.out / run.id
        folder.mkdir(parents=True, exist_ok=True)
        earlier = read_failure(folder)
        failure = Failure(
            run=run.id,
            task=run.task,
            seed=run.seed,
            reason=reason,
            last_lines=last_lines(folder),
            attempts=1 + (earlier.attempts if earlier else 0),
            when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        write_record(folder, failure)
        self._close(run, self.summary.failed, queue, reason)
        for child in self._children(run):
            self._fail(child, f"the {run.task} run {run.id} that it starts from failed: {reason}", queue)

    def _close(self, run: Run, where: list[str], queue: RunQueue, reason: str | None = None) -> None:
        where.append(run.id)
        del self._open[run.id]
        self.view.ended(run, State.FINISHED if reason is None else State.FAILED, reason)
        if reason is None:
            queue.fill(self._children(run))

    def _children(self, run: Run) -> list[Run]:
        """Open runs that start from what a run has trained."""
        return [other for other in self._open.values() if other.needs == run.id]

    def _ready(self) -> list[Run]:
        """Open runs that need no other, or whose other has ended."""
        return [run for run in self._open.values() if run.needs not in self._open]

    def _look_elsewhere(self, queue: RunQueue) -> None:
        """Nothing waits and nothing runs here: what is open is trained by another command, or was dropped."""
        dropped = []
        for run in list(self._open.values()):
            folder = self.out / run.id
            if (folder / RESULT_FILE).exists():
                self._close(run, self.summary.elsewhere, queue)
            elif run.needs not in self._open and not is_locked(folder / LOCK_FILE):
                dropped.append(run)
        queue.fill(dropped)

    def _stop_children(self, queue: RunQueue) -> None:
        for training in self._training:
            training.process.kill()
        for training in self._training:
            training.process.join()
            queue.finish(training.run.id, None)
        self._training.clear()


def default_workers(devices: int) -> int:
    """One run a GPU, else one run for each core up to four: small models gain nothing from more threads."""
    return devices or min(4, cores())


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted once; a second SIGINT leaves at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Interrupted

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit_reason(status: int | None) -> str:
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with status {status} and left no result"
