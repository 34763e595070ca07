"""Finds the attempts whose holders have died, so that others can go on with their runs."""

import time
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from focal_lab.sweep.engine.hardware import machine_id
from focal_lab.utils.file_lock import LOCK_FILE, is_locked

# Seconds between two looks that must agree: between a claim and the lock there is a moment.
_TWO_LOOKS = 2.0
# Seconds in which whoever claims says who he is.
_TO_INTRODUCE = 30.0


class Burial:
    """Ends the trials of the dead.

    On the machine where a run is trained, its lock tells: the kernel releases it when the holder dies. Of
    other machines only the database knows, by Optuna's heartbeat and its own clock.
    """

    def __init__(self, study: optuna.Study, out: Path) -> None:
        self._study, self._out = study, out
        storage = study._storage
        self._backend = getattr(storage, "_backend", storage)
        self._suspected: dict[int, float] = {}

    def bury(self, ours: set[int]) -> None:
        """Look once; `ours` are the numbers of the trials that this command holds."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = [trial for trial in running if trial.number not in ours]
        if others and isinstance(self._backend, RDBStorage):
            fail_stale_trials(self._study)
        suspected = {trial.number for trial in others if not self._lives(trial)}
        now = time.monotonic()
        self._suspected = {number: self._suspected.get(number, now) for number in suspected}
        for trial in others:
            since = self._suspected.get(trial.number, now)
            if now - since >= (_TWO_LOOKS if "machine" in trial.user_attrs else self._introduction()):
                self._end(trial)

    def _introduction(self) -> float:
        """Seconds for a claim of which not even the holder is known: it has no heartbeat that could stop."""
        grace = self._backend.grace_period if isinstance(self._backend, RDBStorage) else None
        return float(grace or _TO_INTRODUCE)

    def _lives(self, trial: FrozenTrial) -> bool:
        machine = trial.user_attrs.get("machine")
        if isinstance(self._backend, RDBStorage) and machine not in (None, machine_id()):
            return True  # its heartbeat decides
        run = trial.user_attrs.get("run")
        return run is not None and is_locked(self._out / str(run) / LOCK_FILE)

    def _end(self, trial: FrozenTrial) -> None:
        storage = self._study._storage
        try:
            storage.set_trial_user_attr(trial._trial_id, "outcome", "lost")
            storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # it ended after all, or somebody else has buried it
