"""Which runs others may take over: heartbeats to a database, and trials of commands that were killed."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from focal_lab.sweep.engine.slots import machine_id
from focal_lab.sweep.engine.storage import database_of
from focal_lab.sweep.run_folder.layout import is_running

# Share of the grace period without a heartbeat after which a run must be stopped, before others may take it.
_FENCE = 0.75
# Seconds for which a run must look untrained: a moment passes between a claim and its lock.
_CONFIRM_SECONDS = 2.0
# Seconds until a claim must name its machine.
_NAME_SECONDS = 30.0


class Heartbeat:
    """Sends heartbeats for all trials held, from a thread of its own; does nothing without a database.

    Optuna sends them only inside `study.optimize`.

    Args:
        study: of the trials.
        grace: seconds without a heartbeat after which others consider a trial stale.
    """

    def __init__(self, study: optuna.Study, grace: float) -> None:
        self._database, self._grace = database_of(study), grace
        self._trials: dict[str, tuple[int, float]] = {}  # run -> trial, time of its last heartbeat
        self._lost: set[str] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: str, trial: Trial) -> None:
        """Send heartbeats for a trial from now on."""
        if self._database is None:
            return
        self._database.record_heartbeat(trial._trial_id)
        with self._guard:
            self._trials[run] = (trial._trial_id, time.monotonic())
            self._lost.discard(run)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._send, args=(self._database,), name="heartbeat", daemon=True
            )
            self._thread.start()

    def remove(self, run: str) -> None:
        """Send no more heartbeats for a run, which has ended."""
        with self._guard:
            self._trials.pop(run, None)
            self._lost.discard(run)

    def lost(self) -> set[str]:
        """Runs whose trials others have ended, or may end soon because the database was not reached."""
        with self._guard:
            now = time.monotonic()
            cut_off = {run for run, (_, last) in self._trials.items() if now - last > _FENCE * self._grace}
            return self._lost | cut_off

    def stop(self) -> None:
        """Send no more heartbeats."""
        self._stop.set()

    def _send(self, database: RDBStorage) -> None:
        while not self._stop.wait(database.get_heartbeat_interval()):
            with self._guard:
                trials = dict(self._trials)
            for run, (trial, _) in trials.items():
                # whatever the database raises: the time of the last heartbeat says enough
                with suppress(Exception):
                    alive = database.get_trial(trial).state == TrialState.RUNNING
                    if alive:
                        database.record_heartbeat(trial)
                    self._note(run, trial, alive)

    def _note(self, run: str, trial: int, alive: bool) -> None:
        with self._guard:
            if run not in self._trials or self._trials[run][0] != trial:
                return  # meanwhile the run has ended, or has another trial
            if alive:
                self._trials[run] = (trial, time.monotonic())
            else:
                self._lost.add(run)


class StaleTrials:
    """Finds running trials that no command holds any more.

    On this machine the run's lock decides: the kernel releases it when the holder exits. For other machines
    Optuna's heartbeat does, by the database's clock.
    """

    def __init__(self, study: optuna.Study, out: Path) -> None:
        self._study, self._out, self._database = study, out, database_of(study)
        self._suspected: dict[int, float] = {}

    def end(self, ours: set[int]) -> None:
        """Look once; `ours` are the numbers of the trials that this command holds."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = [trial for trial in running if trial.number not in ours]
        if others and self._database is not None:
            fail_stale_trials(self._study)
        suspected = {trial.number for trial in others if not self._is_alive(trial)}
        now = time.monotonic()
        self._suspected = {number: self._suspected.get(number, now) for number in suspected}
        for trial in others:
            since = self._suspected.get(trial.number, now)
            if now - since >= (_CONFIRM_SECONDS if "machine" in trial.user_attrs else self._name_seconds):
                storage = self._study._storage
                with suppress(UpdateFinishedTrialError):  # it ended after all, or another command was first
                    storage.set_trial_user_attr(trial._trial_id, "outcome", "lost")
                    storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)

    @property
    def _name_seconds(self) -> float:
        """Seconds that a claim may go without a machine, before it has a heartbeat."""
        return float((self._database and self._database.grace_period) or _NAME_SECONDS)

    def _is_alive(self, trial: FrozenTrial) -> bool:
        machine = trial.user_attrs.get("machine")
        if self._database is not None and machine not in (None, machine_id()):
            return True  # its heartbeat decides
        run = trial.user_attrs.get("run")
        return run is not None and is_running(self._out / str(run))
