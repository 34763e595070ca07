"""Heartbeats to a shared database, and which runs other machines may take over.

Optuna sends them only inside `study.optimize`.
"""

import threading
import time
from contextlib import suppress

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from focal_lab.sweep.engine.storage import backend_of

# Share of the grace period without a heartbeat after which a run must be stopped, before others may take it.
_FENCE = 0.75


class Heartbeat:
    """Sends heartbeats for all trials held, from a thread of its own; does nothing without a database.

    Args:
        study: of the trials.
        grace: seconds without a heartbeat after which others consider a trial stale.
    """

    def __init__(self, study: optuna.Study, grace: float) -> None:
        backend = backend_of(study)
        self._database = backend if isinstance(backend, RDBStorage) else None
        self._grace = grace
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
