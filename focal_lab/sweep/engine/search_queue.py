"""A queue that proposes runs: Optuna's samplers over the ranges of a search."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from focal_lab.errors import UserError
from focal_lab.sweep.engine.queue import DROPPED, FINISHED, PRUNED, ClaimedRun, RunQueue
from focal_lab.sweep.engine.slots import machine_id, worker_name
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.proposals import Params, Proposals, SearchSpace
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.result import known_values, objective_values
from focal_lab.sweep.spec.search_section import Range

# Successive halving: the best third of the runs at an epoch is trained for three times as many.
_REDUCTION = 3
# Repeated proposals, in a row, after which a space of unknown size is considered exhausted.
_MOST_REPEATS = 100
_STARTUP_TRIALS = 10  # random proposals before TPE has enough to go by; Optuna's default


class SearchQueue(RunQueue):
    """Claims waiting runs; proposes new ones until the search has all its trials.

    Args:
        out: folder of the runs.
        space: ranges, objectives, and how a proposal becomes a run.
        options: as for RunQueue.

    Attributes:
        spent: whether nothing is left to propose.

    Raises:
        UserError: the storage cannot be used.
    """

    searches = True

    def __init__(self, out: Path, space: SearchSpace, **options: Any) -> None:
        self._space, self._search = space, space.search
        categories = {name: CategoricalDistribution(labels) for name, labels in space.levels.items()}
        numbers = {name: _distribution(numbers) for name, numbers in space.search.ranges.items()}
        self._distributions: dict[str, BaseDistribution] = {**categories, **numbers}
        self.proposals = Proposals(out, space)
        self.spent = False
        self._useless: set[tuple[str, ...]] = set()  # cells that are impossible, or a run of another cell
        super().__init__(out, space.study, **options)
        with self._tolerate_outage():
            self._restore()

    @property
    def trials(self) -> int:
        """The number of trials in the sweep file."""
        return self._search.trials

    @property
    def exhausted(self) -> bool:
        """Whether no trial is left to propose, and none is being trained."""
        if self.down:
            return False
        with self._tolerate_outage():
            trials = self.study.get_trials(deepcopy=False)
            active = any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
            return not active and (self.spent or len(self._proposed(trials)) >= self.trials)
        return False

    def claim(self) -> ClaimedRun | None:
        """A waiting run, or a new proposal; None if all were made or the database does not respond."""
        claimed = super().claim()
        if claimed is not None or self.down:
            return claimed
        with self._tolerate_outage():
            trials = self.study.get_trials(deepcopy=False)
            chosen: Params | None = None
            repeats = 0
            while not self.spent and len(self._proposed(trials)) < self.trials:
                known = len(self.proposals.runs())
                claimed = self._propose(len(trials), chosen)
                if claimed is not None:
                    return claimed
                trials = self.study.get_trials(deepcopy=False)
                repeats = repeats + 1 if len(self.proposals.runs()) == known else 0
                chosen = self._choose(repeats, len(trials)) if repeats else None
        return None

    def _choose(self, repeats: int, known: int) -> Params | None:
        """An untried combination, after the sampler repeated one; None if they cannot be listed."""
        combinations = self._space.combinations
        if combinations is None:
            self.spent = repeats >= _MOST_REPEATS
            return None
        tried = {_key(run.cell) for run in self.proposals.runs().values()} | self._useless
        left = [params for params in combinations if _key(self._space.cell(params)) not in tried]
        self.spent = not left
        return random.Random(f"{self._search.seed} {known}").choice(left) if left else None

    def report(self, run: str, value: float, step: int) -> bool:
        """Like RunQueue's; True if the run is one of the worse ones."""
        if len(self._search.objectives) > 1:
            return False  # Optuna has no intermediate values of several objectives
        super().report(run, value, step)
        with self._tolerate_outage():
            return not self.down and self._held[run].should_prune()
        return False

    def _propose(self, known: int, chosen: Params | None) -> ClaimedRun | None:
        # every proposal has its own seed: those of several commands differ, those of one are repeatable
        self.study.sampler = _sampler(self._search.sampler, self._search.seed * 1_000_003 + known, chosen)
        trial = self.study.ask(fixed_distributions=self._distributions)
        before = (other for other in self.study.get_trials(deepcopy=False) if other.number < trial.number)
        # another command has enqueued this trial, or made the last proposal
        if "run" in trial.user_attrs or len(self._proposed(before)) >= self.trials:
            self._close(trial, DROPPED)
            return None
        try:
            run = self._space.run(trial.params)
        except UserError as error:
            self._useless.add(_key(self._space.cell(trial.params)))
            trial.set_user_attr("reason", error.message)
            self._close(trial, DROPPED)
            return None
        return self._take(trial, run)

    def _take(self, trial: Trial, run: Run) -> ClaimedRun | None:
        ours = {"machine": machine_id(), "worker": worker_name()}
        for name, value in (self._attributes(run, 1) | ours).items():
            trial.set_user_attr(name, value)
        known = run.id in self.proposals.runs()
        if known or self._is_running(self.study, run.id, trial.number):
            # a command that proposes the same at this moment steps back, too; then it is still untried
            self._useless |= {_key(run.cell)} if known else set()
            trial.set_user_attr("reason", "was proposed before")
            self._close(trial, DROPPED)
            return None
        result = read_outcome(self.out / run.id).result
        self.proposals.add(run, trial.params)
        if result is not None:  # trained by another sweep
            self._close_finished(trial, known_values(result))
            return None
        if self._has_holder(run.id, trial):  # another sweep trains it
            self._close(trial, DROPPED)
            return None
        return self._hold(run.id, trial)

    def _proposed(self, trials: Iterable[FrozenTrial]) -> set[str]:
        """Runs proposed so far, and a name for each proposal in progress."""
        found = set(self.proposals.runs())
        for trial in trials:
            run = trial.user_attrs.get("run")
            dropped = trial.user_attrs.get("outcome") == DROPPED
            if not dropped and (run is not None or trial.state == TrialState.RUNNING):
                found.add(run or f"trial {trial.number}")
        return found

    def _restore(self) -> None:
        """Restore a lost storage from the run folders."""
        known = {trial.user_attrs.get("run") for trial in self.study.get_trials(deepcopy=False)}
        for name, run in self.proposals.runs().items():
            outcome = read_outcome(self.out / name)
            if name in known or outcome.state not in (State.FINISHED, State.PRUNED):
                continue
            metrics = known_values(outcome.result) if outcome.result else {}
            values = self._values(metrics)
            if outcome.result and values is None:
                continue
            ended = {"outcome": FINISHED if outcome.result else PRUNED}
            self.study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if outcome.result else TrialState.PRUNED,
                    params=self.proposals.params(name),
                    distributions=self._distributions,
                    values=values,
                    user_attrs=self._attributes(run, 1) | metrics | ended,
                )
            )

    def _values(self, metrics: Mapping[str, float]) -> list[float] | None:
        return objective_values(metrics, self._search.objectives)

    def _enqueue(self, run: Run, attempt: int) -> None:
        self._add_waiting(run, attempt, self.proposals.params(run.id), self._distributions)

    def _study_options(self) -> dict[str, Any]:
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if self._search.pruning == "successive_halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION)
        return {"directions": list(self._search.objectives.values()), "pruner": pruner}


def _key(cell: Cell) -> tuple[str, ...]:
    return tuple(cell.labels.values())


def _distribution(numbers: Range) -> BaseDistribution:
    if numbers.whole:
        return IntDistribution(int(numbers.low), int(numbers.high), numbers.log, int(numbers.step or 1))
    return FloatDistribution(numbers.low, numbers.high, numbers.log, numbers.step)


def _sampler(name: str, seed: int, chosen: Params | None) -> optuna.samplers.BaseSampler:
    """The sampler of that name, or one that proposes exactly the chosen values."""
    if chosen is not None:
        return optuna.samplers.PartialFixedSampler(chosen, optuna.samplers.RandomSampler(seed=seed))
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
    )
