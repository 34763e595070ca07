"""Ends the trials of commands that were killed or cut off, so that others can train their runs."""

import time
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from focal_lab.sweep.engine.slots import machine_id
from focal_lab.sweep.engine.storage import backend_of
from focal_lab.sweep.run_folder.layout import is_running

# Seconds for which a run must look untrained: a moment passes between a claim and its lock.
_CONFIRM_SECONDS = 2.0
# Seconds until a claim must name its machine.
_NAME_SECONDS = 30.0


class StaleTrials:
    """Finds running trials that no command holds any more.

    On this machine the run's lock decides: the kernel releases it when the holder exits. For other machines
    Optuna's heartbeat does, by the database's clock.
    """

    def __init__(self, study: optuna.Study, out: Path) -> None:
        self._study, self._out = study, out
        backend = backend_of(study)
        self._database = backend if isinstance(backend, RDBStorage) else None
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
