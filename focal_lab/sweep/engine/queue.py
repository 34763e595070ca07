"""The queue of missing runs: one Optuna trial an attempt, shared by all commands and machines at work.

The plan is the truth about what is needed and `result.json` about what is done. The queue only hands out
each missing run once; losing it loses nothing. It is kept short, because claiming from a long one is slow:
whoever is at work puts in the next few runs.
"""

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from focal_lab.command_line import without_password
from focal_lab.errors import UserError
from focal_lab.sweep.engine.hardware import machine_id, worker_name
from focal_lab.sweep.engine.heartbeat import Heartbeat
from focal_lab.sweep.engine.stale_trials import Burial
from focal_lab.sweep.engine.storage import (
    GRACE,
    JOURNAL,
    open_storage,
    unreachable,
    unreachable_why,
)
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.result import RESULT_FILE, set_aside
from focal_lab.sweep.spec.columns import MAIN
from focal_lab.utils.file_lock import FileLock

# how a trial ended, as its attribute "outcome"
FINISHED, GIVEN_BACK, DIED, LOST, FAILED, PRUNED, DROPPED = (
    "finished",
    "given back",
    "died",
    "lost",
    "failed",
    "pruned",
    "dropped",
)
# Seconds before the database is asked again after it did not answer.
_REST = 5.0
# Seconds in which a shared folder may not show yet what another machine has written (NFS's acdirmax).
_FOLDER_DELAY = 120.0


@dataclass(frozen=True)
class Claim:
    """A run that is ours to train; `attempt` counts from 1."""

    run: str
    attempt: int


class RunQueue:
    """Claims runs of one study, whose value is the main metric of each run's task.

    Args:
        out: folder of the runs.
        study: name of the study; a sweep that changes by more than seeds has another one.
        storage: address of a PostgreSQL database; None for a journal file in `out`.
        retries: how often a run that died is tried again.
        levels: factor -> labels, which Optuna's own tools show as parameters.
        grace: seconds after which a silent machine is taken for dead.
        rivals: names of other studies that may train a run, too; their holders are respected.

    Raises:
        UserError: the storage cannot be used.
    """

    def __init__(
        self,
        out: Path,
        study: str,
        *,
        storage: str | None = None,
        retries: int = 1,
        levels: Mapping[str, Iterable[str]] | None = None,
        grace: float = GRACE,
        rivals: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        self.out, self.retries, self.shared = out, retries, storage is not None
        self._levels = {
            name: CategoricalDistribution(list(labels)) for name, labels in (levels or {}).items()
        }
        self._rivals = rivals
        self._held: dict[str, Trial] = {}
        self._owed: list[Callable[[], object]] = []
        self._rest_until = 0.0
        self._seen_complete: dict[int, float] = {}
        self._fresh_from = 0  # what earlier commands gave up is tried again by this one
        self._study = self._open(study, storage, grace)
        self._burial = Burial(self._study, out)
        self.heartbeat = Heartbeat(self._study, grace)

    # whether runs are proposed as it goes
    searches = False

    @property
    def exhausted(self) -> bool:
        """Whether no run will be claimed that the plan does not have."""
        return True

    @property
    def storage(self) -> BaseStorage:
        """Where the trials are."""
        storage = self._study._storage
        backend = getattr(storage, "_backend", None)
        return backend if isinstance(backend, BaseStorage) else storage

    @property
    def down(self) -> bool:
        """Whether the database did not answer a moment ago."""
        return time.monotonic() < self._rest_until

    @property
    def owes(self) -> bool:
        """Whether something that happened is not written down yet."""
        return bool(self._owed)

    def feed(self, runs: Iterable[Run], room: int) -> None:
        """Put runs into the queue, in this order, until `room` wait there.

        Left out is what waits, is being trained by anybody, has ended, or was tried often enough.
        """
        if self.down:
            return
        with suppress_outage(self), FileLock(self.out / f".{JOURNAL}.feed"):
            latest = self._latest()
            waiting = sum(trial.state == TrialState.WAITING for trial in latest.values())
            for run in runs:
                if waiting >= room:
                    return
                attempt = self._next_attempt(latest.get(run.id))
                if attempt is not None and attempt <= self.retries + 1:
                    self._enqueue(run, attempt)
                    waiting += 1

    def claim(self) -> Claim | None:
        """A run that nobody else was given, None when none is waiting or the database does not answer."""
        if self.down:
            return None
        with suppress_outage(self):
            while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                trial = self._study.ask()
                run = trial.user_attrs.get("run")
                if run is None:
                    # somebody took the last one in between: this is a random trial that nobody asked for
                    self._close(trial, DROPPED)
                    return None
                trial.set_user_attr("machine", machine_id())
                trial.set_user_attr("worker", worker_name())
                if run in self._held or self._has_holder(run, trial):
                    self._close(trial, DROPPED)
                    continue
                self._held[run] = trial
                self.heartbeat.add(run, trial)
                return Claim(run, int(trial.user_attrs.get("attempt", 1)))
        return None

    def report(self, run: str, value: float, step: int) -> bool:
        """An intermediate value, for Optuna's own tools; lost if the database does not answer.

        Returns:
            Whether the run should be stopped because others are better.
        """
        if not self.down:
            with suppress_outage(self), suppress(UpdateFinishedTrialError):
                self._held[run].report(value, step)
        return False

    def finish(self, run: str, metrics: Mapping[str, float]) -> None:
        """The run has its result."""
        trial = self._let_go(run)

        def write() -> None:
            for name, value in metrics.items():
                trial.set_user_attr(name, value)
            values = self._values(metrics)
            self._close(trial, FAILED if values is None else FINISHED, values)

        self._owe(write)

    def end(self, run: str, outcome: str, reason: str = "") -> None:
        """The run ended without a result: DIED, FAILED, GIVEN_BACK, or DROPPED if it never began."""
        trial = self._let_go(run)

        def write() -> None:
            if reason:
                trial.set_user_attr("reason", reason)
            self._close(trial, outcome)

        self._owe(write)

    def bury(self) -> None:
        """Give free what the dead held."""
        if self.down:
            return
        with suppress_outage(self):
            self._burial.bury({trial.number for trial in self._held.values()})

    def verdict(self, runs: Iterable[Run]) -> dict[str, tuple[str, str]]:
        """What others found of these runs: id -> (FINISHED, PRUNED or FAILED, reason)."""
        found: dict[str, tuple[str, str]] = {}
        if self.down:
            return found
        with suppress_outage(self):
            latest = self._latest()
            for run in runs:
                trial = latest.get(run.id)
                if (self.out / run.id / RESULT_FILE).exists():
                    found[run.id] = (FINISHED, "")
                elif trial is None or trial.number < self._fresh_from:
                    continue
                elif trial.state == TrialState.PRUNED:
                    found[run.id] = (PRUNED, trial.user_attrs.get("reason", ""))
                elif trial.state == TrialState.FAIL:
                    attempt = self._next_attempt(trial)
                    if attempt is None or attempt > self.retries + 1:
                        worker = trial.user_attrs.get("worker", "a worker")
                        lost = f"its worker {worker} died or was cut off"
                        found[run.id] = (FAILED, trial.user_attrs.get("reason", lost))
        return found

    def helpers(self) -> int:
        """How many runs of the study others train now."""
        if self.down:
            return 0
        with suppress_outage(self):
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            return len(running) - len(self._held)
        return 0

    def pay(self) -> None:
        """Write down what could not be written when it happened."""
        while self._owed and not self.down:
            done = False
            with suppress_outage(self):
                with suppress(UpdateFinishedTrialError):  # somebody took us for dead; result.json decides
                    self._owed[0]()
                done = True
            if done:
                self._owed.pop(0)

    def close(self) -> None:
        """Leave; what is still held is taken for dead by others after a while."""
        self.heartbeat.stop()

    def rest(self) -> None:
        """Leave the database alone for a moment."""
        self._rest_until = time.monotonic() + _REST

    def _values(self, metrics: Mapping[str, float]) -> list[float] | None:
        """What the study compares: the main metric of the run's task."""
        mains = [metrics[name] for name in MAIN.values() if name in metrics]
        return (mains or list(metrics.values()))[:1]

    def _study_options(self) -> dict[str, Any]:
        """How the study is made."""
        return {"direction": "maximize", "pruner": optuna.pruners.NopPruner()}

    def _owe(self, write: Callable[[], object]) -> None:
        self._owed.append(write)
        self.pay()

    def _let_go(self, run: str) -> Trial:
        self.heartbeat.remove(run)
        return self._held.pop(run)

    def _latest(self) -> dict[str, FrozenTrial]:
        """Run -> its last trial."""
        latest: dict[str, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if "run" in attributes and attributes.get("outcome") != DROPPED:
                latest[attributes["run"]] = trial
        return latest

    def _next_attempt(self, last: FrozenTrial | None) -> int | None:
        """Which attempt would be a run's next, None when there is to be none now."""
        if last is None:
            return 1
        if last.state in (TrialState.WAITING, TrialState.RUNNING, TrialState.PRUNED):
            return None
        if last.state == TrialState.COMPLETE:
            if (self.out / str(last.user_attrs.get("run")) / RESULT_FILE).exists():
                return None
            # the result may be on its way through a shared folder; else somebody has removed it
            return None if self.shared and self._just_ended(last) else 1
        if last.number < self._fresh_from:
            return 1
        outcome = last.user_attrs.get("outcome")
        if outcome == FAILED:
            return None
        return int(last.user_attrs.get("attempt", 1)) + (outcome != GIVEN_BACK)

    def _just_ended(self, last: FrozenTrial) -> bool:
        """Whether a result may be on its way here; other machines' clocks count for old trials only."""
        ended = last.datetime_complete
        if last.number < self._fresh_from and ended is not None:
            return abs((datetime.datetime.now() - ended).total_seconds()) < _FOLDER_DELAY
        seen = self._seen_complete.setdefault(last.number, time.monotonic())
        return time.monotonic() - seen < _FOLDER_DELAY

    def _enqueue(self, run: Run, attempt: int) -> None:
        labels = {name: label for name, label in run.cell.labels.items() if name in self._levels}
        trial = create_trial(
            state=TrialState.WAITING,
            params=labels,
            distributions={name: self._levels[name] for name in labels},
            user_attrs=self._attributes(run, attempt),
        )
        self._study.add_trial(trial)

    @staticmethod
    def _attributes(run: Run, attempt: int) -> dict[str, Any]:
        return {"run": run.id, "task": run.task, "seed": run.seed, "attempt": attempt}

    def _has_holder(self, run: str, mine: Trial) -> bool:
        """Whether somebody else holds a trial of this run: whoever comes second steps back.

        Both look after they have claimed, so that never both go on; if both step back, the run is put into
        the queue again.
        """
        if self._is_running(self._study, run, mine.number):
            return True
        for name in self._rivals(run) if self.shared and self._rivals else ():
            with suppress(KeyError):  # a plan that nobody has begun in this database
                rival = optuna.load_study(study_name=name, storage=self._study._storage)
                optuna.storages.fail_stale_trials(rival)
                if self._is_running(rival, run, None):
                    return True
        return False

    @staticmethod
    def _is_running(study: optuna.Study, run: str, but: int | None) -> bool:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return any(trial.user_attrs.get("run") == run and trial.number != but for trial in running)

    def _close(self, trial: Trial, outcome: str, values: list[float] | None = None) -> None:
        """End a trial, unless another command did: `result.json` and the lock decide, not the trial."""
        state = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(outcome, TrialState.FAIL)
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("outcome", outcome)
            self._study.tell(trial, values, state=None if values else state, skip_if_finished=True)

    def _open(self, study: str, storage: str | None, grace: float) -> optuna.Study:
        try:
            opened = _open_study(self.out, study, storage, grace, self._study_options())
            self._fresh_from = len(opened.get_trials(deepcopy=False))
            return opened
        except Exception as error:  # whatever a damaged journal makes Optuna raise
            if storage is not None and unreachable(error):
                raise UserError(
                    unreachable_why(error), key=f"--storage {without_password(storage)}"
                ) from error
            journal = self.out / JOURNAL
            if storage is not None or isinstance(error, OSError) or not journal.exists():
                raise
            kept = set_aside(journal)
            print(
                f"{journal}: is damaged ({error}); set aside as {kept.name}, a new one is begun",
                file=sys.stderr,
            )
            return _open_study(self.out, study, storage, grace, self._study_options())


class suppress_outage:  # noqa: N801  (reads like contextlib.suppress)
    """Lets a database that does not answer pass: the queue rests, and what was to be done is done later."""

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None or not self._queue.shared or not unreachable(error):
            return False
        self._queue.rest()
        return True


def _open_study(
    out: Path, study: str, storage: str | None, grace: float, options: Mapping[str, Any]
) -> optuna.Study:
    return optuna.create_study(
        study_name=study,
        storage=open_storage(out, storage, grace),
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),
        **options,
    )
