"""The queue of missing runs: one Optuna trial per attempt, shared by all commands and machines.

The plan says what is needed and `result.json` what is done; the queue only hands out each missing run once.
It can be lost, and is kept short, because claiming from a long queue is slow.
"""

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from focal_lab.command_line import without_password
from focal_lab.errors import UserError
from focal_lab.sweep.engine.conflicts import other_studies
from focal_lab.sweep.engine.heartbeat import Heartbeat, StaleTrials
from focal_lab.sweep.engine.slots import machine_id, worker_name
from focal_lab.sweep.engine.storage import (
    GRACE,
    JOURNAL,
    open_storage,
    unreachable,
    unreachable_why,
)
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import has_result
from focal_lab.sweep.run_folder.result import set_aside
from focal_lab.sweep.spec.columns import MAIN
from focal_lab.utils.file_lock import FileLock

# How a trial ended, as its attribute "outcome"; see also StaleTrials. RETURNED does not count as an attempt,
# CRASHED may be retried, DROPPED never started.
FINISHED, RETURNED, CRASHED = "finished", "given back", "died"
FAILED, PRUNED, DROPPED = "failed", "pruned", "dropped"
# Seconds before the next request to a database that did not respond.
_REST = 5.0
# Seconds in which a shared folder may not show yet what another machine has written (NFS's acdirmax).
_FOLDER_DELAY = 120.0


@dataclass(frozen=True)
class ClaimedRun:
    """ID of a run that this command is to train; `attempt` counts from 1."""

    run: str
    attempt: int


class RunQueue:
    """Claims runs of one study, whose value is the main metric of each run's task.

    Args:
        out: folder of the runs.
        study: name of the study; a sweep that changes by more than seeds has another one.
        storage: URL of a PostgreSQL database; None for a journal file in `out`.
        retries: how often a run that crashed is tried again.
        levels: factor -> labels, which Optuna's own tools show as parameters.
        grace: seconds without a heartbeat after which a machine is considered dead.

    Raises:
        UserError: the storage cannot be used.
    """

    searches = False  # whether runs are proposed while others train

    def __init__(
        self,
        out: Path,
        study: str,
        *,
        storage: str | None = None,
        retries: int = 1,
        levels: Mapping[str, Iterable[str]] | None = None,
        grace: float = GRACE,
    ) -> None:
        self.out, self.retries, self.shared = out, retries, storage is not None
        self._levels = {
            name: CategoricalDistribution(list(labels)) for name, labels in (levels or {}).items()
        }
        self._held: dict[str, Trial] = {}
        self._pending: list[Callable[[], object]] = []
        self._rest_until = 0.0
        self._seen_complete: dict[int, float] = {}
        self.study = self._open(study, storage, grace)
        # what earlier commands gave up is tried again by this one
        self._fresh_from = len(self.study.get_trials(deepcopy=False))
        self._stale = StaleTrials(self.study, out)
        self.heartbeat = Heartbeat(self.study, grace)

    @property
    def exhausted(self) -> bool:
        """Whether all runs that can be claimed are in the plan."""
        return True

    @property
    def down(self) -> bool:
        """Whether the database did not respond a moment ago."""
        return time.monotonic() < self._rest_until

    @property
    def pending(self) -> bool:
        """Whether there are changes that are not yet written to the database."""
        return bool(self._pending)

    def feed(self, runs: Iterable[Run], room: int) -> None:
        """Enqueue runs, in this order, until `room` wait.

        Runs that wait, are being trained, have ended, or were tried often enough are left out.
        """
        if self.down:
            return
        with self._tolerate_outage(), FileLock(self.out / f".{JOURNAL}.feed"):
            latest = self._latest()
            waiting = sum(trial.state == TrialState.WAITING for trial in latest.values())
            for run in runs:
                if waiting >= room:
                    return
                attempt = self._next_attempt(latest.get(run.id))
                if attempt is not None and attempt <= self.retries + 1:
                    self._enqueue(run, attempt)
                    waiting += 1

    def claim(self) -> ClaimedRun | None:
        """A waiting run that no other command has; None if there is none or the database does not respond."""
        if self.down:
            return None
        with self._tolerate_outage():
            while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                trial = self.study.ask()
                run = trial.user_attrs.get("run")
                if run is None:
                    # another command took the last one: Optuna made up a random trial
                    self._close(trial, DROPPED)
                    return None
                trial.set_user_attr("machine", machine_id())
                trial.set_user_attr("worker", worker_name())
                if run in self._held or self._has_holder(run, trial):
                    self._close(trial, DROPPED)
                    continue
                return self._hold(run, trial)
        return None

    def report(self, run: str, value: float, step: int) -> bool:
        """Record an intermediate value, for Optuna's own tools; lost if the database does not respond.

        Returns:
            Whether the run should be stopped because others are better.
        """
        if not self.down:
            with self._tolerate_outage(), suppress(UpdateFinishedTrialError):
                self._held[run].report(value, step)
        return False

    def finish(self, run: str, metrics: Mapping[str, float]) -> None:
        """Record that a run has its result."""
        trial = self._release(run)
        self._write(lambda: self._close_finished(trial, metrics))

    def end(self, run: str, outcome: str, reason: str = "") -> None:
        """Record that a run ended without a result: CRASHED, FAILED, PRUNED, RETURNED or DROPPED."""
        trial = self._release(run)

        def write() -> None:
            if reason:
                trial.set_user_attr("reason", reason)
            self._close(trial, outcome)

        self._write(write)

    def end_stale(self) -> None:
        """End the trials of commands that were killed or cut off."""
        if not self.down:
            with self._tolerate_outage():
                self._stale.end({trial.number for trial in self._held.values()})

    def ended_elsewhere(self, runs: Iterable[Run]) -> dict[str, tuple[str, str]]:
        """Outcomes of runs that other commands trained: ID -> (FINISHED, PRUNED or FAILED, reason)."""
        found: dict[str, tuple[str, str]] = {}
        if self.down:
            return found
        with self._tolerate_outage():
            latest = self._latest()
            for run in runs:
                trial = latest.get(run.id)
                if has_result(self.out / run.id):
                    found[run.id] = (FINISHED, "")
                elif trial is None or trial.number < self._fresh_from:
                    continue
                elif trial.state == TrialState.PRUNED:
                    found[run.id] = (PRUNED, trial.user_attrs.get("reason", ""))
                elif trial.state == TrialState.FAIL:
                    attempt = self._next_attempt(trial)
                    if attempt is None or attempt > self.retries + 1:
                        worker = trial.user_attrs.get("worker", "a worker")
                        lost = f"its worker {worker} was killed or cut off"
                        found[run.id] = (FAILED, trial.user_attrs.get("reason", lost))
        return found

    def helpers(self) -> int:
        """Number of runs of the study that other commands are training."""
        if not self.down:
            with self._tolerate_outage():
                running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                return len(running) - len(self._held)
        return 0

    def write_pending(self) -> None:
        """Write changes that could not be written earlier."""
        while self._pending and not self.down:
            done = False
            with self._tolerate_outage():
                with suppress(
                    UpdateFinishedTrialError
                ):  # another command ended it as stale; result.json decides
                    self._pending[0]()
                done = True
            if done:
                self._pending.pop(0)

    def close(self) -> None:
        """Stop; other commands will find trials that are still held to be stale."""
        self.heartbeat.stop()

    @contextmanager
    def _tolerate_outage(self) -> Iterator[None]:
        """Ignore that a shared database does not respond; it is tried again after a pause."""
        try:
            yield
        except Exception as error:
            if not self.shared or not unreachable(error):
                raise
            self._rest_until = time.monotonic() + _REST

    def _values(self, metrics: Mapping[str, float]) -> list[float] | None:
        """Values of the study: the main metric of the run's task."""
        mains = [metrics[name] for name in MAIN.values() if name in metrics]
        return (mains or list(metrics.values()))[:1]

    def _study_options(self) -> dict[str, Any]:
        return {"direction": "maximize", "pruner": optuna.pruners.NopPruner()}

    def _write(self, write: Callable[[], object]) -> None:
        self._pending.append(write)
        self.write_pending()

    def _hold(self, run: str, trial: Trial) -> ClaimedRun:
        self._held[run] = trial
        self.heartbeat.add(run, trial)
        return ClaimedRun(run, int(trial.user_attrs.get("attempt", 1)))

    def _release(self, run: str) -> Trial:
        self.heartbeat.remove(run)
        return self._held.pop(run)

    def _latest(self) -> dict[str, FrozenTrial]:
        """Run -> its last trial."""
        latest: dict[str, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if "run" in attributes and attributes.get("outcome") != DROPPED:
                latest[attributes["run"]] = trial
        return latest

    def _next_attempt(self, last: FrozenTrial | None) -> int | None:
        """Number of a run's next attempt; None if it should not be attempted now."""
        if last is None:
            return 1
        if last.state in (TrialState.WAITING, TrialState.RUNNING, TrialState.PRUNED):
            return None
        if last.state == TrialState.COMPLETE:
            if has_result(self.out / str(last.user_attrs.get("run"))):
                return None
            # the result may not be visible here yet; else it was removed
            return None if self.shared and self._just_ended(last) else 1
        if last.number < self._fresh_from:
            return 1
        outcome = last.user_attrs.get("outcome")
        if outcome == FAILED:
            return None
        return int(last.user_attrs.get("attempt", 1)) + (outcome != RETURNED)

    def _just_ended(self, last: FrozenTrial) -> bool:
        """Whether a result may still be on its way through a shared folder.

        The clocks of other machines count only for trials that ended before this command started.
        """
        ended = last.datetime_complete
        if last.number < self._fresh_from and ended is not None:
            return abs((datetime.datetime.now() - ended).total_seconds()) < _FOLDER_DELAY
        seen = self._seen_complete.setdefault(last.number, time.monotonic())
        return time.monotonic() - seen < _FOLDER_DELAY

    def _enqueue(self, run: Run, attempt: int) -> None:
        labels = {name: label for name, label in run.cell.labels.items() if name in self._levels}
        self._add_waiting(run, attempt, labels, {name: self._levels[name] for name in labels})

    def _add_waiting(
        self, run: Run, attempt: int, params: dict[str, Any], distributions: dict[str, Any]
    ) -> None:
        self.study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions=distributions,
                user_attrs=self._attributes(run, attempt),
            )
        )

    @staticmethod
    def _attributes(run: Run, attempt: int) -> dict[str, Any]:
        return {"run": run.id, "task": run.task, "seed": run.seed, "attempt": attempt}

    def _has_holder(self, run: str, mine: Trial) -> bool:
        """Whether another command holds a trial of this run: the second one steps back.

        Both look after they have claimed, so that never both train it. If both step back, the run is enqueued
        again.
        """
        if self._is_running(self.study, run, mine.number):
            return True
        for name in other_studies(run, self.study.study_name, self.out) if self.shared else ():
            with suppress(KeyError):  # a plan that was never started in this database
                rival = optuna.load_study(study_name=name, storage=self.study._storage)
                optuna.storages.fail_stale_trials(rival)
                if self._is_running(rival, run, None):
                    return True
        return False

    @staticmethod
    def _is_running(study: optuna.Study, run: str, but: int | None) -> bool:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return any(trial.user_attrs.get("run") == run and trial.number != but for trial in running)

    def _close_finished(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            trial.set_user_attr(name, value)
        values = self._values(metrics)
        if values is None:
            trial.set_user_attr("reason", "has no validation to compare")
        self._close(trial, FAILED if values is None else FINISHED, values)

    def _close(self, trial: Trial, outcome: str, values: list[float] | None = None) -> None:
        """End a trial, unless another command did: `result.json` and the lock decide, not the trial."""
        state = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(outcome, TrialState.FAIL)
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("outcome", outcome)
            self.study.tell(trial, values, state=None if values else state, skip_if_finished=True)

    def _open(self, study: str, storage: str | None, grace: float) -> optuna.Study:
        def create() -> optuna.Study:
            opened = optuna.create_study(
                study_name=study,
                storage=open_storage(self.out, storage, grace),
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
                **self._study_options(),
            )
            opened.get_trials(deepcopy=False)
            return opened

        try:
            return create()
        except Exception as error:  # a damaged journal makes Optuna raise anything
            if storage is not None and unreachable(error):
                raise UserError(
                    unreachable_why(error), key=f"--storage {without_password(storage)}"
                ) from error
            journal = self.out / JOURNAL
            if storage is not None or isinstance(error, OSError) or not journal.exists():
                raise
            kept = set_aside(journal)
            print(
                f"{journal}: is damaged ({error}); moved to {kept.name}, a new one is created",
                file=sys.stderr,
            )
            return create()
