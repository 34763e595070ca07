"""A queue that proposes runs: Optuna's samplers over the ranges of a search."""

import random
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from focal_lab.sweep.engine.hardware import machine_id, worker_name
from focal_lab.sweep.engine.queue import (
    DROPPED,
    FAILED,
    FINISHED,
    PRUNED,
    Claim,
    RunQueue,
    suppress_outage,
)
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.proposals import Params, Proposals, Recipe
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.result import Result, known_values, objective_values
from focal_lab.sweep.spec.search_section import Range

# Successive halving: the best third of the runs that reached an epoch goes on to three times as many.
_REDUCTION = 3
# Proposals that were all made before, in a row, after which a space of unknown size is taken for exhausted.
_MISSES = 100
_STARTUP_TRIALS = 10  # random proposals before the estimator has something to go by; Optuna's default


class SearchQueue(RunQueue):
    """Claims what waits, and else proposes what was not proposed yet, until the search has had its trials.

    Attributes:
        spent: whether nothing is left to propose.

    Args:
        out: folder of the runs.
        recipe: ranges, objectives, and how a proposal becomes a run.
        options: as for RunQueue.

    Raises:
        UserError: the storage cannot be used.
    """

    searches = True

    def __init__(self, out: Path, recipe: Recipe, **options: Any) -> None:
        self._recipe, self._search = recipe, recipe.search
        self._space = _space(recipe)
        self.proposals = Proposals(out, recipe)
        self.spent = False
        self._useless: set[tuple[str, ...]] = set()  # what cannot be, or is another's run
        super().__init__(out, recipe.study, **options)
        with suppress_outage(self):
            self._restore()

    @property
    def trials(self) -> int:
        """How many the file asks for."""
        return self._search.trials

    @property
    def exhausted(self) -> bool:
        """Whether all trials were proposed, or all that there are, and nobody trains one of them."""
        if self.down:
            return False
        with suppress_outage(self):
            trials = self._study.get_trials(deepcopy=False)
            at_work = any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
            return not at_work and (self.spent or len(self._proposed(trials)) >= self._search.trials)
        return False

    def claim(self) -> Claim | None:
        """What waits, or a new proposal; None when all were made or the database does not answer."""
        claim = super().claim()
        if claim is not None or self.down:
            return claim
        with suppress_outage(self):
            trials = self._study.get_trials(deepcopy=False)
            chosen: Params | None = None
            misses = 0
            while not self.spent and len(self._proposed(trials)) < self._search.trials:
                known = len(self.proposals.runs())
                claim = self._propose(len(trials), chosen)
                if claim is not None:
                    return claim
                trials = self._study.get_trials(deepcopy=False)
                misses = misses + 1 if len(self.proposals.runs()) == known else 0
                chosen = self._choose(misses, len(trials)) if misses else None
        return None

    def _choose(self, misses: int, known: int) -> Params | None:
        """What has not been tried, after the sampler's choice was; None where only the sampler knows."""
        combinations = self._recipe.combinations
        if combinations is None:
            self.spent = misses >= _MISSES
            return None
        tried = {_key(run.cell) for run in self.proposals.runs().values()} | self._useless
        left = [params for params in combinations if _key(self._recipe.cell(params)) not in tried]
        self.spent = not left
        return random.Random(f"{self._search.seed} {known}").choice(left) if left else None

    def report(self, run: str, value: float, step: int) -> bool:
        """As RunQueue's; whether the run is one of the worse ones and should be stopped."""
        if len(self._search.objectives) > 1:
            return False  # Optuna has no intermediate values of several objectives
        super().report(run, value, step)
        with suppress_outage(self):
            return not self.down and self._held[run].should_prune()
        return False

    def _propose(self, known: int, chosen: Params | None) -> Claim | None:
        # every proposal has a seed of its own: those of several commands differ, those of one are repeatable
        self._study.sampler = _sampler(self._search.sampler, self._search.seed * 1_000_003 + known, chosen)
        trial = self._study.ask(fixed_distributions=self._space)
        if "run" in trial.user_attrs:  # something was put in between
            self._close(trial, DROPPED)
            return None
        if len(self._proposed(self._before(trial))) >= self._search.trials:
            self._close(trial, DROPPED)
            return None
        try:
            run = self._recipe.run(trial.params)
        except UserError as error:
            self._useless.add(_key(self._recipe.cell(trial.params)))
            trial.set_user_attr("reason", error.message)
            self._close(trial, DROPPED)
            return None
        return self._take(trial, run)

    def _take(self, trial: Trial, run: Run) -> Claim | None:
        ours = {"machine": machine_id(), "worker": worker_name()}
        for name, value in (self._attributes(run, 1) | ours).items():
            trial.set_user_attr(name, value)
        known = run.id in self.proposals.runs()
        if known or self._is_running(self._study, run.id, trial.number):
            # whoever proposes the same at this moment steps back, too: then it is still to be tried
            self._useless |= {_key(run.cell)} if known else set()
            trial.set_user_attr("reason", "was proposed before")
            self._close(trial, DROPPED)
            return None
        result = read_outcome(self.out / run.id).result
        self.proposals.add(run, trial.params)
        if result is not None:  # trained by another sweep
            self._write_values(trial, result)
            return None
        if self._has_holder(run.id, trial):  # another sweep trains it
            self._close(trial, DROPPED)
            return None
        self._held[run.id] = trial
        self.heartbeat.add(run.id, trial)
        return Claim(run.id, 1)

    def _proposed(self, trials: Iterable[FrozenTrial]) -> set[str]:
        """Runs that were proposed so far; a proposal that is just being made counts."""
        found = set(self.proposals.runs())
        for trial in trials:
            run = trial.user_attrs.get("run")
            dropped = trial.user_attrs.get("outcome") == DROPPED
            if not dropped and (run is not None or trial.state == TrialState.RUNNING):
                found.add(run or f"trial {trial.number}")
        return found

    def _before(self, trial: Trial) -> Iterable[FrozenTrial]:
        return [other for other in self._study.get_trials(deepcopy=False) if other.number < trial.number]

    def _write_values(self, trial: Trial, result: Result) -> None:
        values = known_values(result)
        for name, value in values.items():
            trial.set_user_attr(name, value)
        compared = self._values(values)
        if compared is None:
            trial.set_user_attr("reason", "has no validation to compare")
        self._close(trial, FAILED if compared is None else FINISHED, compared)

    def _restore(self) -> None:
        """Tell a storage that was lost what the folder knows."""
        known = {trial.user_attrs.get("run") for trial in self._study.get_trials(deepcopy=False)}
        for name, run in self.proposals.runs().items():
            outcome = read_outcome(self.out / name)
            if name in known or outcome.state not in (State.FINISHED, State.PRUNED):
                continue
            values = known_values(outcome.result) if outcome.result else {}
            compared = self._values(values)
            if outcome.result and compared is None:
                continue
            ended = {"outcome": FINISHED if outcome.result else PRUNED}
            self._study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if outcome.result else TrialState.PRUNED,
                    params=self.proposals.params(name),
                    distributions=self._space,
                    values=compared,
                    user_attrs=self._attributes(run, 1) | values | ended,
                )
            )

    def _values(self, metrics: Mapping[str, float]) -> list[float] | None:
        return objective_values(metrics, self._search.objectives)

    def _enqueue(self, run: Run, attempt: int) -> None:
        self._study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=self.proposals.params(run.id),
                distributions=self._space,
                user_attrs={
                    "run": run.id,
                    "task": run.task,
                    "seed": run.seed,
                    "attempt": attempt,
                    "again": True,
                },
            )
        )

    def _study_options(self) -> dict[str, Any]:
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if self._search.pruning == "successive_halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION)
        return {"directions": list(self._search.objectives.values()), "pruner": pruner}


def _key(cell: Cell) -> tuple[str, ...]:
    """Labels of a cell."""
    return tuple(cell.labels.values())


def _space(recipe: Recipe) -> dict[str, BaseDistribution]:
    categories = {name: CategoricalDistribution(labels) for name, labels in recipe.levels.items()}
    return {**categories, **{name: _numbers(numbers) for name, numbers in recipe.search.ranges.items()}}


def _numbers(numbers: Range) -> BaseDistribution:
    if numbers.whole:
        return IntDistribution(int(numbers.low), int(numbers.high), numbers.log, int(numbers.step or 1))
    return FloatDistribution(numbers.low, numbers.high, numbers.log, numbers.step)


def _sampler(name: str, seed: int, chosen: Params | None) -> optuna.samplers.BaseSampler:
    """A sampler; of what was chosen already it proposes just that."""
    if name == "random" or chosen is not None:
        base = optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings(), suppress(AttributeError):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if chosen is not None:
            return optuna.samplers.PartialFixedSampler(chosen, base)
        if name == "random":
            return base
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
    raise AssertionError
