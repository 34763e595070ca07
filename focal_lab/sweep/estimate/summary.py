"""A plan with all that is known of it before anything is trained."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.estimate.budget import check_budget, hold, wall_seconds
from focal_lab.sweep.estimate.check_and_count import Checked
from focal_lab.sweep.estimate.run_time import Estimates, estimate_runs
from focal_lab.sweep.plan.plan import Plan, probe_plan, with_proposals
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.worker.processes import WarmProcesses


@dataclass(frozen=True)
class Survey:
    """What a plan comes to.

    Attributes:
        checked: what its runs cost, and on which machine this was asked.
        places: where they would be trained.
        estimates: time and memory of those that are to be trained.
        states: run id -> what became of it so far.
        proposals: of a search, how many are still to be trained; None for a design. The plan's runs are then
            examples, at the ends of the search's ranges.
        obstacle: why this machine cannot train them.
    """

    plan: Plan
    checked: Checked
    places: DeviceSlots
    estimates: Estimates
    states: Mapping[str, State]
    proposals: int | None = None
    obstacle: str | None = None

    @cached_property
    def to_train(self) -> list[Run]:
        """Runs without a result, in order."""
        return [run for run in self.plan.distinct_runs if self.states[run.id] is not State.FINISHED]

    @property
    def seconds(self) -> float:
        """Of all runs that are to be trained, as far as it is known."""
        if self.proposals is not None:
            return self.proposals * self._typical
        return sum(
            self.estimates.runs[run.id].seconds for run in self.to_train if run.id in self.estimates.runs
        )

    @property
    def wall_seconds(self) -> float:
        """From the first to the last of them."""
        if self.proposals is not None:
            return -(-self.proposals // self.places.count) * self._typical
        return wall_seconds(self.to_train, self.estimates.seconds, self.places.count)

    @cached_property
    def absent(self) -> dict[str, list[str]]:
        """Which data are not on this machine -> names of the cells to train that need them."""
        found: dict[str, dict[str, None]] = {}
        for run in self.to_train if self.proposals != 0 else []:
            if run.id in self.checked.absent:
                found.setdefault(self.checked.absent[run.id], {})[run.cell.name] = None
        return {reason: list(cells) for reason, cells in found.items()}

    def refuse_absent(self) -> None:
        """Raises UserError where data of runs that are to be trained are not on this machine."""
        for reason, cells in self.absent.items():
            raise UserError(f"{reason}, for {cells[0]}", file=self.plan.sweep.path)

    def hold(self, budget: float) -> None:
        """Hold the time against a budget in seconds.

        Raises:
            UserError: the runs need more, or nobody knows how long they take.
        """
        if self.proposals is None or self.unknown:
            check_budget(budget, self.to_train, self.estimates.seconds, self.places.count)
        else:
            hold(budget, self.proposals, self.wall_seconds, self.places.count)

    @property
    def _typical(self) -> float:
        """Seconds of a search's run: the mean of its examples."""
        known = list(self.estimates.seconds.values())
        return sum(known) / len(known) if known else 0.0

    @property
    def unknown(self) -> int:
        """Runs to train whose time is not known."""
        return sum(run.id not in self.estimates.runs for run in self.to_train)

    @cached_property
    def memory_mb(self) -> float:
        """What runs need at the same time: on one GPU, or on the machine where there is none."""
        known = (self.estimates.runs.get(run.id) for run in self.to_train)
        highest = sorted((one.memory_mb for one in known if one), reverse=True)
        together = self.places.count
        if self.places.names:
            together = -(-self.places.count * self.places.each // len(self.places.names))
        return sum(highest[:together])

    @property
    def memory_there_mb(self) -> float:
        """What one GPU, or the machine, has."""
        machine = self.checked.machine
        return machine.device_memory_mb if machine.device_memory_mb is not None else machine.memory_mb

    @cached_property
    def twins(self) -> dict[str, list[str]]:
        """Cells that come to the very same runs: the first one's name -> the others' names."""
        cell_of: dict[str, str] = {}
        found: dict[str, dict[str, None]] = {}
        for run in self.plan.runs:
            first = cell_of.setdefault(run.id, run.cell.name)
            if first != run.cell.name:
                found.setdefault(first, {})[run.cell.name] = None
        return {first: list(others) for first, others in found.items()}


def survey_of(
    asked: Plan,
    checked: Checked,
    places: DeviceSlots,
    out: Path,
    processes: WarmProcesses | None,
    *,
    way_out: str = "",
) -> Survey:
    """What a plan comes to with what lies in a folder; of a search, examples of what it may propose.

    Args:
        asked: the plan.
        checked: `probe_plan` of it, checked.
        places: where its runs would be trained.
        out: folder of the runs.
        processes: where to measure what is not known; None to measure nothing.
        way_out: what is said to who does not want to wait for measurements.
    """
    plan = probe_plan(asked)
    outcomes = {run.id: read_outcome(out / run.id) for run in plan.distinct_runs}
    results = {name: outcome.result for name, outcome in outcomes.items() if outcome.result}
    proposals = None if asked.recipe is None else _proposals_left(asked, asked.recipe.trials, out)
    estimates = estimate_runs(
        plan.distinct_runs,
        results if proposals is None else {},
        places,
        checked.machine,
        out,
        processes,
        absent=checked.absent,
        told=lambda text: print(text + way_out, file=sys.stderr, flush=True),
    )
    states = {name: outcome.state for name, outcome in outcomes.items()}
    return Survey(plan, checked, places, estimates, states, proposals)


def _proposals_left(plan: Plan, trials: int, out: Path) -> int:
    """How many runs of a search are still to be trained."""
    states = [read_outcome(out / run.id).state for run in with_proposals(plan, out).distinct_runs]
    return max(0, trials - sum(state in (State.FINISHED, State.PRUNED) for state in states))
