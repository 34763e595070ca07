"""The queue of missing runs: one Optuna trial each, in a journal file that several commands may share.

The plan is the truth about what is needed and `result.json` about what is done. The queue only hands out
each missing run once; losing it loses nothing.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from focal_lab.ablation.engine.locks import LOCK_FILE, FileLock, is_locked
from focal_lab.ablation.result import set_aside
from focal_lab.ablation.runs import Run

JOURNAL = "queue.journal"


class RunQueue:
    """Claims runs of one study.

    Args:
        out: folder of the runs; the journal is in it.
        study: name of the study; a changed plan gets another one.
    """

    def __init__(self, out: Path, study: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.out = out
        self._trials: dict[str, Trial] = {}
        try:
            self._study = self._open(study)
        except Exception as error:  # whatever a damaged journal makes Optuna raise
            journal = out / JOURNAL
            if not journal.exists():
                raise
            kept = set_aside(journal)
            print(
                f"{journal}: is damaged ({error}); set aside as {kept.name}, a new one is begun",
                file=sys.stderr,
            )
            self._study = self._open(study)

    def fill(self, runs: Iterable[Run]) -> None:
        """Put every run in the queue that is neither waiting there nor being trained by anybody."""
        latest: dict[str, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if "run" in trial.user_attrs:
                latest[trial.user_attrs["run"]] = trial
        for run in runs:
            last = latest.get(run.id)
            if last is not None and last.state == TrialState.WAITING:
                continue
            if last is not None and last.state == TrialState.RUNNING:
                if run.id in self._trials or is_locked(self.out / run.id / LOCK_FILE):
                    continue
                # its holder died: Optuna's journal has no heartbeat, the kernel's lock is ours
                self._close(last.number, None)
            labels = {name: str(label) for name, label in run.cell.labels.items()}
            attributes = {"run": run.id, "task": run.task, "seed": run.seed, **labels}
            self._study.enqueue_trial({}, user_attrs=attributes)

    def claim(self) -> str | None:
        """The id of a run that nobody else was given, None when none is waiting."""
        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self._study.ask()
            run = trial.user_attrs.get("run")
            if run is not None:
                self._trials[run] = trial
                return str(run)
            # somebody took the last one in between: this is a random trial that nobody asked for
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def report(self, run: str, value: float, step: int) -> None:
        """An intermediate value, for Optuna's own tools."""
        with suppress(UpdateFinishedTrialError):
            self._trials[run].report(value, step)

    def finish(self, run: str, value: float | None) -> None:
        """The run ended with this value, or failed."""
        self._close(self._trials.pop(run), value)

    def _close(self, trial: Trial | int, value: float | None) -> None:
        """End a trial, unless another command did.

        One that looks between a claim and the child's lock takes the holder for dead; optuna's own check
        leaves a moment between looking and writing. `result.json` and the lock decide, not the trial.
        """
        with suppress(UpdateFinishedTrialError):
            if value is None:
                self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            else:
                self._study.tell(trial, value, skip_if_finished=True)

    def _open(self, study: str) -> optuna.Study:
        journal = self.out / JOURNAL
        self.out.mkdir(parents=True, exist_ok=True)
        backend: BaseJournalBackend = JournalFileBackend(str(journal), lock_obj=_JournalLock(journal))  # type: ignore[arg-type]
        return optuna.create_study(
            study_name=study,
            storage=JournalStorage(backend),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),
            sampler=optuna.samplers.RandomSampler(),
        )


class _JournalLock(FileLock):
    """Optuna's lock files outlive a killed process by their grace period of 30 s; the kernel's do not.

    Whoever takes the lock also cuts off the half-written line of a process that was killed while writing,
    which would make everything after it unreadable.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_name(f"{journal.name}.lock"))
        self.journal = journal

    def acquire(self, *, wait: bool = True) -> bool:
        held = super().acquire(wait=wait)
        with open(self.journal, "rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(size - 1)
                if stream.read(1) != b"\n":
                    stream.seek(0)
                    stream.truncate(stream.read().rfind(b"\n") + 1)
        return held
