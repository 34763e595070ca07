"""Signs of life to a shared database, and the knowledge of being taken for dead.

Optuna watches trials only inside `study.optimize`; a worker that asks and tells sends the beats itself.
"""

import threading
import time
from contextlib import suppress

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

# Share of the grace period after which a worker that cannot say that it lives must stop: before the others
# may take its runs.
_FENCE = 0.75


class Heartbeat:
    """Beats for all trials held, in a thread of its own; nothing where there is no database.

    Args:
        study: whose trials.
        grace: seconds of silence after which others take a trial for dead.
    """

    def __init__(self, study: optuna.Study, grace: float) -> None:
        backend = getattr(study._storage, "_backend", None)
        self._storage = backend if isinstance(backend, RDBStorage) else None
        self._grace = grace
        self._trials: dict[str, tuple[int, float]] = {}
        self._lost: set[str] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: str, trial: Trial) -> None:
        """Beat for a trial from now on."""
        if self._storage is None:
            return
        self._storage.record_heartbeat(trial._trial_id)
        with self._guard:
            self._trials[run] = (trial._trial_id, time.monotonic())
            self._lost.discard(run)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def remove(self, run: str) -> None:
        """Its run has ended."""
        with self._guard:
            self._trials.pop(run, None)
            self._lost.discard(run)

    def lost(self) -> set[str]:
        """Runs that are not ours any more: others took us for dead, or are about to."""
        with self._guard:
            now = time.monotonic()
            cut_off = {run for run, (_, last) in self._trials.items() if now - last > _FENCE * self._grace}
            return self._lost | cut_off

    def stop(self) -> None:
        """No more beats."""
        self._stop.set()

    def _beat(self) -> None:
        storage = self._storage
        assert storage is not None
        while not self._stop.wait(storage.get_heartbeat_interval()):
            with self._guard:
                trials = dict(self._trials)
            for run, (trial, _) in trials.items():
                # whatever the database raises: the time of the last beat says enough
                with suppress(Exception):
                    alive = storage.get_trial(trial).state == TrialState.RUNNING
                    if alive:
                        storage.record_heartbeat(trial)
                    self._note(run, trial, alive)

    def _note(self, run: str, trial: int, alive: bool) -> None:
        """What the database said of a trial; meanwhile the run may have got another one."""
        with self._guard:
            if run not in self._trials or self._trials[run][0] != trial:
                return
            if alive:
                self._trials[run] = (trial, time.monotonic())
            else:
                self._lost.add(run)
