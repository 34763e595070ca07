"""Trains the runs of a plan that have no result: claims them from the queue and follows each attempt."""

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.sweep.engine.attempt import Attempt, wait_for
from focal_lab.sweep.engine.progress import SweepView
from focal_lab.sweep.engine.queue import (
    CRASHED,
    DROPPED,
    FAILED,
    FINISHED,
    PRUNED,
    RETURNED,
    ClaimedRun,
    RunQueue,
)
from focal_lab.sweep.engine.slots import DeviceSlots, devices_asked
from focal_lab.sweep.identity.user_code import changed_code, code_changed
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.disk_space import disk_full
from focal_lab.sweep.run_folder.layout import (
    BEST_CHECKPOINT,
    CONFIG_FILE,
    RESULT_FILE,
    last_lines,
    prune_checkpoints,
    run_lock,
)
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.provenance import git_of
from focal_lab.sweep.run_folder.result import Failure, known_values, read_failure, set_aside, write_record
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.request import SharedLock, TrainRequest
from focal_lab.sweep.worker.signals import Interrupted, StopSignals
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.yaml import dump_yaml

# Seconds: between two turns when nothing happens; between two looks at the queue when it is empty; that runs
# may take to write checkpoints when they are stopped; that a run is left alone when its lock is held; between
# two counts of the runs of other commands.
_TICK, _LOOK, _STOP_SECONDS, _AVOID, _COUNT = 0.5, 2.0, 60.0, 5.0, 20.0


@dataclass
class ExecutionSummary:
    """IDs of the runs of a sweep by how they ended.

    `halted` is why the sweep stopped by itself, `way_out` the advice before "with: COMMAND".
    """

    reused: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    interrupted: bool = False
    halted: str | None = None
    way_out: str = "Free disk space, then resume"


class Execution:
    """One command's share of a sweep.

    Args:
        runs: to be trained.
        out: folder of the runs.
        queue: of the runs' study.
        slots: how many runs at a time, on which devices.
        timeout: seconds without a message after which a run is considered hung.
        keep: checkpoints of finished runs that are kept, of `best` and `last`.
        processes: where worker processes come from.
        view: shows what happens.
        find: returns all runs of the study by ID; those that other commands enqueued are trained, too.
        adopt: whether runs that are added to the study become this command's own.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        out: Path,
        queue: RunQueue,
        *,
        slots: DeviceSlots,
        timeout: float,
        keep: frozenset[str],
        processes: WarmProcesses,
        view: SweepView,
        find: Callable[[], Mapping[str, Run]] = dict,
        adopt: bool = False,
    ) -> None:
        self.out, self.queue, self.slots, self._timeout, self._keep = out, queue, slots, timeout, keep
        self.processes, self.view, self._find, self._adopt = processes, view, find, adopt
        self.summary = ExecutionSummary()
        self._runs = {run.id: run for run in runs}
        self._open = dict(self._runs)
        self._attempts: list[Attempt] = []
        self._avoided: dict[str, float] = {}
        self._next_look = self._next_count = 0.0
        self._stop_by: float | None = None

    def run(self) -> ExecutionSummary:
        """Train until no run is open. On a signal, or when it halts, runs write checkpoints first."""
        self._skip_finished()
        with StopSignals(self._request_stop) as signals:
            try:
                while self._attempts or (self._may_start and (self._open or not self.queue.exhausted)):
                    self._turn(signals)
                self._settle(signals)
            except Interrupted:
                self.summary.interrupted = True
            except OSError as error:
                self.summary.halted = self.summary.halted or disk_full(self.out, error)
                if self.summary.halted is None:
                    raise
            finally:
                signals.leaving = True
                self._leave()
        return self.summary

    @property
    def _may_start(self) -> bool:
        return self._stop_by is None and self.summary.halted is None

    def _skip_finished(self) -> None:
        for run in list(self._open.values()):
            outcome = read_outcome(self.out / run.id)
            if outcome.state is State.CORRUPT:
                damaged = self.out / run.id / RESULT_FILE
                kept = set_aside(damaged)
                self.view.noted(
                    f"{damaged}: {outcome.problem}; moved to {kept.name}, the run is trained again"
                )
            elif outcome.state is State.FINISHED:
                self.summary.reused.append(run.id)
                self.view.reused(run)
                del self._open[run.id]
            elif outcome.state is State.PRUNED and self.queue.searches:
                self._close(run, self.summary.pruned, outcome.reason, State.PRUNED)

    def _turn(self, signals: StopSignals) -> None:
        """One turn of the loop: start runs, receive messages, kill what hangs, redraw."""
        if signals.requested and self._stop_by is None:
            self.summary.interrupted = True
            self._stop()
        if self._may_start:
            self._start_runs()
        wait_for(self._attempts, _TICK)
        for attempt in list(self._attempts):
            self._receive(attempt)
            if attempt.ended:
                self._ended(attempt)
        self._kill_lost()
        if time.monotonic() > self._next_count:
            self._next_count = time.monotonic() + _COUNT
            self.view.helped(self.queue.helpers())
        self.queue.write_pending()
        self.view.tick()

    def _start_runs(self) -> None:
        while len(self._attempts) < self.slots.count and self._may_start:
            claimed = self.queue.claim()
            if claimed is None:
                if time.monotonic() < self._next_look:
                    return
                self._refill_queue()
                claimed = self.queue.claim()
            if claimed is None:
                self._next_look = time.monotonic() + _LOOK
                return
            self._start(claimed)

    def _refill_queue(self) -> None:
        """Read what other commands have done, end stale trials, and enqueue the runs that are ready."""
        self.queue.end_stale()
        added = [run for name, run in self._find().items() if name not in self._runs] if self._adopt else []
        for run in added:
            self._runs[run.id] = self._open[run.id] = run
        if added:
            self.view.noted(f"{len(added)} runs were added to the plan")
        ours = {attempt.run.id for attempt in self._attempts}
        others = [run for run in self._open.values() if run.id not in ours]
        for name, (outcome, reason) in self.queue.ended_elsewhere(others).items():
            if outcome == FINISHED:
                self._close(self._runs[name], self.summary.elsewhere)
            elif name in self._open:
                self._fail(self._runs[name], reason, pruned=outcome == PRUNED)
        now = time.monotonic()
        ready = (run for run in self._open.values() if run.needs not in self._open and run.id not in ours)
        self.queue.feed((run for run in ready if self._avoided.get(run.id, 0.0) < now), self.slots.count)

    def _start(self, claimed: ClaimedRun) -> None:
        run = self._runs.get(claimed.run) or self._find().get(claimed.run)
        folder = self.out / claimed.run
        lock = run_lock(folder)
        if run is None or not lock.acquire(wait=False):
            self._avoided[claimed.run] = time.monotonic() + _AVOID
            self.queue.end(claimed.run, DROPPED)
            return
        result = read_outcome(folder).result
        if result is not None:
            lock.release()
            self.queue.finish(run.id, known_values(result))
            if run.id in self._open:
                self._close(run, self.summary.elsewhere)
            return
        changed = changed_code(run.config, run.identity)
        if changed:  # the runs in training have loaded the right code
            lock.release()
            self.queue.end(run.id, RETURNED)
            self.summary.halted, self.summary.way_out = code_changed(changed), "Then resume"
            return
        # a failed run may have been enqueued by hand
        self._runs[run.id] = self._open[run.id] = run
        write_atomic(folder / CONFIG_FILE, dump_yaml(self._config_of(run)))
        slot = min(set(range(self.slots.count)) - {attempt.slot for attempt in self._attempts})
        request = TrainRequest(
            folder=str(folder),
            identity=run.identity,
            git=git_of(run.identity.get("code", {})),
            threads=self.slots.threads,
            devices=self.slots.devices(slot, run),
            ranks=devices_asked(run),
            lock=SharedLock(lock.descriptor),
        )
        self._attempts.append(Attempt(run, claimed.attempt, slot, lock, request, self.processes))
        self.view.started(run)

    def _config_of(self, run: Run) -> dict[str, Any]:
        """What the run's process trains: its configuration, from the checkpoint of the run that it needs."""
        if run.needs is None:
            return run.config
        model = dict(run.config["model"])
        checkpoint = str(self.out / run.needs / BEST_CHECKPOINT)
        model["init_args"] = dict(model.get("init_args", {})) | {"backbone_checkpoint": checkpoint}
        return run.config | {"model": model}

    def _receive(self, attempt: Attempt) -> None:
        for kind, value in attempt.receive():
            if kind == "note":
                self.view.noted(value)
                continue
            self.view.progressed(attempt.run, value)
            metric = value.get("metric") if value.get("validated") else None
            if metric is not None and self.queue.report(attempt.run.id, metric, value["epoch"]):
                attempt.request("prune")
                attempt.pruned_at = f"epoch {value['epoch']}, validation {metric:.1f}"

    def _kill_lost(self) -> None:
        """Kill runs that hang, that another machine may train by now, or that do not stop."""
        now = time.monotonic()
        lost = self.queue.heartbeat.lost()
        for attempt in list(self._attempts):
            if attempt.run.id in lost and attempt.requested is None and not attempt.cut_off:
                self.view.noted(
                    f"{attempt.run.id}: this machine was cut off; the run is left to other machines"
                )
                self._avoided[attempt.run.id] = now + _AVOID
                attempt.cut_off = True
                attempt.kill()
            elif now - attempt.last_message > self._timeout:
                attempt.reason = f"sent no message for {self._timeout:.0f} s (--timeout)"
                attempt.kill()
            elif self._stop_by is not None and now > self._stop_by:
                attempt.kill()

    def _ended(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        reason = attempt.close()
        run, folder = attempt.run, self.out / attempt.run.id
        # an exit status proves nothing: only result.json does
        outcome = read_outcome(folder)
        if outcome.result is not None:
            self.queue.finish(run.id, known_values(outcome.result))
            needed = any(other.needs == run.id for other in self._runs.values())
            prune_checkpoints(folder, self._keep | ({"best"} if needed else set()))
            self._close(run, self.summary.trained)
            return
        full = disk_full(self.out, reason)
        if full is not None and self.summary.halted is None:
            self.summary.halted = full
            self._stop()
        if attempt.ending == "stopped" and attempt.pruned_at is not None:
            reason = f"stopped early at {attempt.pruned_at}: others were better by then"
            self.queue.end(run.id, PRUNED, reason)
            self._fail(run, reason, attempt.number, pruned=True)
        elif self._stop_by is not None or attempt.cut_off or attempt.requested == "stop":
            self.queue.end(run.id, RETURNED)
        elif attempt.ending == "wrong" or attempt.number > self.queue.retries:
            self.queue.end(run.id, FAILED, reason)
            self._fail(run, reason, attempt.number)
        else:
            self.queue.end(run.id, CRASHED, reason)
            self.view.retried(run, reason, attempt.number + 1)

    def _fail(self, run: Run, reason: str, attempts: int = 0, *, pruned: bool = False) -> None:
        """Record why a run has no result, also for the runs that start from it."""
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

    def _stop(self) -> None:
        self._stop_by = time.monotonic() + _STOP_SECONDS
        self.view.stopping(len(self._attempts))
        self._request_stop()

    def _request_stop(self) -> None:
        for attempt in list(self._attempts):
            attempt.request("stop")

    def _settle(self, signals: StopSignals) -> None:
        """Wait until the database has received everything; whatever it never receives is in result.json."""
        until = time.monotonic() + (_STOP_SECONDS if self._stop_by is None else _TICK)
        if self.queue.pending:
            self.view.noted("waiting for the database, which does not respond")
        while self.queue.pending and time.monotonic() < until and not signals.requested:
            time.sleep(_TICK)
            self.queue.write_pending()

    def _leave(self) -> None:
        """Kill remaining processes: none outlives the command."""
        for attempt in self._attempts:
            attempt.kill()
        for attempt in self._attempts:
            attempt.close()
            with suppress(OSError):  # a full disk; the lock shows that the run is not being trained
                self.queue.end(attempt.run.id, RETURNED)
        self._attempts.clear()
        self.queue.close()
