"""Trains what is missing of a plan: claims runs from the queue, and watches each attempt to its end."""

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from focal_lab.sweep.engine.attempt import Attempt, wait_for
from focal_lab.sweep.engine.queue import (
    DIED,
    DROPPED,
    FAILED,
    FINISHED,
    GIVEN_BACK,
    PRUNED,
    Claim,
    RunQueue,
)
from focal_lab.sweep.engine.slots import Places
from focal_lab.sweep.identity.user_code import changed_code, code_changed
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.disk_space import disk_full
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.provenance import git_of
from focal_lab.sweep.run_folder.result import (
    CONFIG_FILE,
    RESULT_FILE,
    Failure,
    known_values,
    read_failure,
    set_aside,
    write_record,
)
from focal_lab.sweep.run_folder.retention import prune_checkpoints
from focal_lab.sweep.worker.protocol import (
    SharedLock,
    WarmProcesses,
    last_lines,
    order_of,
    trained_checkpoint,
    with_checkpoint,
)
from focal_lab.sweep.worker.signals import Interrupted, StopSignals
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.file_lock import LOCK_FILE, FileLock
from focal_lab.utils.yaml import dump_yaml

# Seconds: how often the loop looks up when nothing happens; between two looks at what others do; how long
# a run that is told to stop may take for its checkpoint; how long a run is left to who holds its lock.
_TICK, _LOOK, _TO_STOP, _AVOID = 0.5, 2.0, 60.0, 5.0
# Seconds between two counts of what others train.
_COUNT = 20.0


class View(Protocol):
    """Who is told what happens; see `progress`."""

    def reused(self, run: Run) -> None: ...
    def started(self, run: Run) -> None: ...
    def progressed(self, run: Run, message: Mapping[str, Any]) -> None: ...
    def retried(self, run: Run, reason: str, attempt: int) -> None: ...
    def ended(self, run: Run, state: State, reason: str | None) -> None: ...
    def stopping(self, count: int) -> None: ...
    def helped(self, count: int) -> None: ...
    def noted(self, text: str) -> None: ...
    def tick(self) -> None: ...


@dataclass
class Summary:
    """How a sweep ended: run ids by what became of them.

    `halted`: why it stopped by itself; `way_out`: what helps, to be followed by "with: COMMAND".
    """

    reused: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    interrupted: bool = False
    halted: str | None = None
    way_out: str = "Make room, then go on"


@dataclass(frozen=True)
class Rules:
    """How runs are treated.

    Attributes:
        timeout: seconds without a sign of life after which a run is taken for hung.
        keep: checkpoints of finished runs that stay: `best`, `last`.
    """

    timeout: float = 3600.0
    keep: frozenset[str] = frozenset({"best", "last"})


class Execution:
    """One command's share in a sweep.

    Args:
        runs: what is needed.
        out: folder of the runs.
        queue: of the runs' study.
        places: how many runs at a time, on which devices.
        rules: how they are treated.
        processes: where children come from.
        view: who is told.
        find: all runs of the study by now, by id; what other commands put into the queue is trained, too.
        adopt: whether runs that are added to the study become this command's own.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        out: Path,
        queue: RunQueue,
        *,
        places: Places,
        rules: Rules,
        processes: WarmProcesses,
        view: View,
        find: Callable[[], Mapping[str, Run]] = dict,
        adopt: bool = False,
    ) -> None:
        self.out, self.queue, self.places, self.rules = out, queue, places, rules
        self.processes, self.view, self._find, self._adopt = processes, view, find, adopt
        self.summary = Summary()
        self._runs = {run.id: run for run in runs}
        self._open = dict(self._runs)
        self._attempts: list[Attempt] = []
        self._avoided: dict[str, float] = {}
        self._next_look = self._next_count = 0.0
        self._stop_by: float | None = None

    def run(self) -> Summary:
        """Train until no run of the plan is open, or somebody stops it: then runs write checkpoints first."""
        self._skip_finished()
        with StopSignals(self._tell_runs) as signals:
            try:
                while self._attempts or (self._goes_on and self._has_more()):
                    self._turn(signals)
                self._settle(signals)
            except Interrupted:
                self.summary.interrupted = True
            except OSError as error:
                self._halt_for(error)
            finally:
                signals.leaving = True
                self._leave()
        return self.summary

    @property
    def _goes_on(self) -> bool:
        """Whether more runs are to be begun."""
        return self._stop_by is None and self.summary.halted is None

    def _has_more(self) -> bool:
        return bool(self._open) or not self.queue.exhausted

    def _skip_finished(self) -> None:
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
            elif outcome.state is State.PRUNED and self.queue.searches:
                self._close(run, self.summary.pruned, outcome.reason, State.PRUNED)

    def _turn(self, signals: StopSignals) -> None:
        """Once round: start, listen, watch, tell."""
        if signals.asked and self._stop_by is None:
            self.summary.interrupted = True
            self._stop()
        if self._goes_on:
            self._start_runs()
        wait_for(self._attempts, _TICK)
        for attempt in list(self._attempts):
            self._hear(attempt)
            if attempt.ended:
                self._ended(attempt)
        self._watch()
        if time.monotonic() > self._next_count:
            self._next_count = time.monotonic() + _COUNT
            self.view.helped(self.queue.helpers())
        self.queue.pay()
        self.view.tick()

    def _start_runs(self) -> None:
        while len(self._attempts) < self.places.count and self._goes_on:
            claim = self.queue.claim()
            if claim is None:
                if time.monotonic() < self._next_look:
                    return
                self._look_around()
                claim = self.queue.claim()
            if claim is None:
                self._next_look = time.monotonic() + _LOOK
                return
            self._claimed(claim)

    def _look_around(self) -> None:
        """Nothing waits: what others have done, who has died, what is to be put into the queue."""
        self.queue.bury()
        added = [run for name, run in self._find().items() if name not in self._runs] if self._adopt else []
        for run in added:
            self._runs[run.id] = self._open[run.id] = run
        if added:
            self.view.noted(f"{len(added)} runs were added to the plan")
        ours = {attempt.run.id for attempt in self._attempts}
        others = [run for run in self._open.values() if run.id not in ours]
        for name, (outcome, reason) in self.queue.verdict(others).items():
            if outcome == FINISHED:
                self._close(self._runs[name], self.summary.elsewhere)
            elif name in self._open:
                self._fail(self._runs[name], reason, pruned=outcome == PRUNED)
        now = time.monotonic()
        ready = (run for run in self._ready() if self._avoided.get(run.id, 0.0) < now)
        self.queue.feed((run for run in ready if run.id not in ours), self.places.count)

    def _claimed(self, claim: Claim) -> None:
        run = self._runs.get(claim.run) or self._find().get(claim.run)
        folder = self.out / claim.run
        lock = FileLock(folder / LOCK_FILE)
        if run is None or not lock.acquire(wait=False):
            self._avoided[claim.run] = time.monotonic() + _AVOID
            self.queue.end(claim.run, DROPPED)
            return
        result = read_outcome(folder).result
        if result is not None:
            lock.release()
            self.queue.finish(run.id, known_values(result))
            if run.id in self._open:
                self._close(run, self.summary.elsewhere)
            return
        changed = changed_code(run.config, run.identity)
        if changed:  # what is being trained already was begun with the right code
            lock.release()
            self.queue.end(run.id, GIVEN_BACK)
            self.summary.halted, self.summary.way_out = code_changed(changed), "Then go on"
            return
        self._runs[run.id] = self._open[run.id] = (
            run  # one that failed may have been put into the queue by hand
        )
        checkpoint = None if run.needs is None else str(trained_checkpoint(self.out / run.needs))
        write_atomic(folder / CONFIG_FILE, dump_yaml(with_checkpoint(run.config, checkpoint)))
        slot = min(set(range(self.places.count)) - {attempt.slot for attempt in self._attempts})
        order = order_of(
            run,
            folder,
            threads=self.places.threads,
            devices=self.places.devices(slot, run),
            ranks=self.places.ranks(run),
            git=git_of(run.identity.get("code", {})),
            lock=SharedLock(lock.descriptor),
        )
        self._attempts.append(Attempt(run, claim.attempt, slot, lock, order, self.processes))
        self.view.started(run)

    def _hear(self, attempt: Attempt) -> None:
        for kind, value in attempt.receive():
            if kind == "note":
                self.view.noted(value)
                continue
            self.view.progressed(attempt.run, value)
            measured = value.get("metric") if value.get("validated") else None
            if measured is not None and self.queue.report(attempt.run.id, measured, value["epoch"]):
                attempt.tell("prune")
                attempt.pruned_at = f"epoch {value['epoch']}, validation {measured:.1f}"

    def _watch(self) -> None:
        """Hung runs, runs that are not ours any more, and those that do not stop."""
        now = time.monotonic()
        lost = self.queue.heartbeat.lost()
        for attempt in list(self._attempts):
            if attempt.run.id in lost and attempt.told is None and not attempt.cut_off:
                self.view.noted(f"{attempt.run.id}: this machine was cut off; the run is left to others")
                self._avoided[attempt.run.id] = now + _AVOID
                attempt.cut_off = True
                attempt.kill()
            elif now - attempt.heard > self.rules.timeout:
                attempt.reason = f"gave no sign of life for {self.rules.timeout:.0f} s (--timeout)"
                attempt.kill()
            elif self._stop_by is not None and now > self._stop_by:
                attempt.kill()

    def _ended(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        why = attempt.close()
        run, folder = attempt.run, self.out / attempt.run.id
        # an exit status proves nothing: result.json, or it did not happen
        outcome = read_outcome(folder)
        if outcome.result is not None:
            self.queue.finish(run.id, known_values(outcome.result))
            needed = any(other.needs == run.id for other in self._runs.values())
            prune_checkpoints(folder, self.rules.keep | ({"best"} if needed else set()))
            self._close(run, self.summary.trained)
            return
        full = disk_full(self.out, why)
        if full is not None:
            self._halt(full)
        if attempt.verdict == "stopped" and attempt.pruned_at is not None:
            why = f"stopped early at {attempt.pruned_at}: others were better by then"
            self.queue.end(run.id, PRUNED, why)
            self._fail(run, why, attempt.number, pruned=True)
        elif self._stop_by is not None or attempt.cut_off or attempt.told == "stop":
            self.queue.end(run.id, GIVEN_BACK)
        elif attempt.verdict == "wrong" or attempt.number > self.queue.retries:
            self.queue.end(run.id, FAILED, why)
            self._fail(run, why, attempt.number)
        else:
            self.queue.end(run.id, DIED, why)
            self.view.retried(run, why, attempt.number + 1)

    def _fail(self, run: Run, reason: str, attempts: int = 0, *, pruned: bool = False) -> None:
        """Record why a run has no result; those that need it have none for the same reason."""
        folder = self.out / run.id
        folder.mkdir(parents=True, exist_ok=True)
        earlier = read_failure(folder)
        if attempts or earlier is None:
            failure = Failure(
                run=run.id,
                task=run.task,
                seed=run.seed,
                reason=reason,
                last_lines=last_lines(folder),
                attempts=attempts + (earlier.attempts if earlier else 0),
                when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                pruned=pruned,
            )
            write_record(folder, failure)
        if pruned:
            self._close(run, self.summary.pruned, reason, State.PRUNED)
            return
        self._close(run, self.summary.failed, reason, State.FAILED)
        for child in [other for other in self._open.values() if other.needs == run.id]:
            self._fail(child, f"the {run.task} run {run.id} that it starts from failed: {reason}")

    def _close(
        self, run: Run, where: list[str], reason: str | None = None, state: State = State.FINISHED
    ) -> None:
        where.append(run.id)
        del self._open[run.id]
        self._next_look = 0.0
        self.view.ended(run, state, reason)

    def _ready(self) -> Iterable[Run]:
        """Open runs that need no other, or whose other has ended."""
        return (run for run in self._open.values() if run.needs not in self._open)

    def _halt(self, why: str) -> None:
        """Stop by itself."""
        if self.summary.halted is None:
            self.summary.halted = why
            self._stop()

    def _halt_for(self, error: OSError) -> None:
        self.summary.halted = self.summary.halted or disk_full(self.out, error)
        if self.summary.halted is None:
            raise error

    def _stop(self) -> None:
        self._stop_by = time.monotonic() + _TO_STOP
        self.view.stopping(len(self._attempts))
        self._tell_runs()

    def _tell_runs(self) -> None:
        for attempt in list(self._attempts):
            attempt.tell("stop")

    def _settle(self, signals: StopSignals) -> None:
        """Wait for a database that has not been told everything; what it never hears, result.json says."""
        until = time.monotonic() + (_TO_STOP if self._stop_by is None else _TICK)
        if self.queue.owes:
            self.view.noted("waiting for the database, which does not answer")
        while self.queue.owes and time.monotonic() < until and not signals.asked:
            time.sleep(_TICK)
            self.queue.pay()

    def _leave(self) -> None:
        """No process outlives the command."""
        for attempt in self._attempts:
            attempt.kill()
        for attempt in self._attempts:
            attempt.close()
            with suppress(OSError):  # a full disk: the lock tells that nobody trains it
                self.queue.end(attempt.run.id, GIVEN_BACK)
        self._attempts.clear()
        self.queue.close()
