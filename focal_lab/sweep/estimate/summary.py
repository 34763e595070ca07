"""A plan with all that is known before training: costs, times, memory, missing data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.engine.slots import DeviceSlots, cores, find_slots
from focal_lab.sweep.estimate.check_and_count import CheckedPlan, check_plan
from focal_lab.sweep.estimate.eta import Job, finish_time
from focal_lab.sweep.estimate.run_time import Estimate, Estimates, estimate_runs
from focal_lab.sweep.plan.plan import Plan, probe_plan, with_proposals
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.utils.units import clock, many


@dataclass(frozen=True)
class PlanSummary:
    """A plan, its costs, and the state of its runs.

    Attributes:
        slots: where its runs would be trained.
        states: by run ID.
        proposals: of a search, how many are left to train; None for a design. The plan's runs are then
            examples, at the ends of the search's ranges.
        obstacle: why this machine cannot train them: it has too few devices.
    """

    plan: Plan
    checked: CheckedPlan
    slots: DeviceSlots
    estimates: Estimates
    states: Mapping[str, State]
    proposals: int | None = None
    obstacle: UserError | None = None

    @cached_property
    def to_train(self) -> list[Run]:
        """Runs without a result, in order."""
        return [run for run in self.plan.distinct_runs if self.states[run.id] is not State.FINISHED]

    @cached_property
    def known(self) -> list[Estimate]:
        """Estimates of the runs to train, where there are any."""
        found = (self.estimates.runs.get(run.id) for run in self.to_train)
        return [estimate for estimate in found if estimate is not None]

    @property
    def unknown(self) -> int:
        """Runs to train whose time is not known."""
        return len(self.to_train) - len(self.known)

    @property
    def seconds(self) -> float:
        """Total seconds of the runs to train, as far as known."""
        if self.proposals is not None:
            return self.proposals * self._typical
        return sum(estimate.seconds for estimate in self.known)

    @property
    def wall_seconds(self) -> float:
        """Seconds from the first start to the last end; runs of unknown time count as 0."""
        if self.proposals is not None:
            return -(-self.proposals // self.slots.count) * self._typical
        seconds = self.estimates.seconds
        jobs = (Job(run.id, seconds.get(run.id, 0.0), run.needs) for run in self.to_train)
        return finish_time(jobs, self.slots.count)

    @property
    def _typical(self) -> float:
        """Seconds of a search's run: the mean of its examples."""
        seconds = self.estimates.seconds.values()
        return sum(seconds) / len(seconds) if seconds else 0.0

    @cached_property
    def absent(self) -> dict[str, list[str]]:
        """Which data are not on this machine -> names of the cells to train that need them."""
        found: dict[str, dict[str, None]] = {}
        for run in self.to_train if self.proposals != 0 else []:
            if run.id in self.checked.absent:
                found.setdefault(self.checked.absent[run.id], {})[run.cell.name] = None
        return {reason: list(cells) for reason, cells in found.items()}

    def refuse_untrainable(self) -> None:
        """Raises UserError if this machine has too few devices, or not the data of runs to train."""
        if self.obstacle is not None:
            raise self.obstacle
        for reason, cells in self.absent.items():
            raise UserError(f"{reason}, for {cells[0]}", file=self.plan.sweep.path)

    def check_budget(self, budget: float) -> None:
        """Raises UserError if the runs need more than the budget in seconds, or an unknown time."""
        unknown = [run for run in self.to_train if run.id not in self.estimates.runs]
        if unknown:
            raise UserError(
                f"the time of {len(unknown)} of {len(self.to_train)} runs is unknown, "
                f"{unknown[0].cell.name} among them (make sure that steps can be measured, or omit --budget)",
                key="--budget",
            )
        if self.wall_seconds > budget:
            count = len(self.to_train) if self.proposals is None else self.proposals
            raise UserError(
                f"{count} runs need {clock(self.wall_seconds)} on {many(self.slots.count, 'worker')}, more "
                f"than {clock(budget)} (fewer seeds, more workers, or a larger budget)",
                key="--budget",
            )

    @cached_property
    def memory_mb(self) -> float:
        """Memory that simultaneous runs need: on one GPU, or on the machine if there is none."""
        together = self.slots.count
        if self.slots.names:
            together = -(-self.slots.count * self.slots.each // len(self.slots.names))
        return sum(sorted((one.memory_mb for one in self.known), reverse=True)[:together])

    @property
    def memory_there_mb(self) -> float:
        """Memory of one GPU, or of the machine."""
        machine = self.checked.machine
        return machine.device_memory_mb if machine.device_memory_mb is not None else machine.memory_mb

    @cached_property
    def twins(self) -> dict[str, list[str]]:
        """Cells that share all runs: the first one's name -> the others' names."""
        cell_of: dict[str, str] = {}
        found: dict[str, dict[str, None]] = {}
        for run in self.plan.runs:
            first = cell_of.setdefault(run.id, run.cell.name)
            if first != run.cell.name:
                found.setdefault(first, {})[run.cell.name] = None
        return {first: list(others) for first, others in found.items()}


def summarize(
    asked: Plan, out: Path, workers: int | None, processes: WarmProcesses, *, measure: bool
) -> PlanSummary:
    """Check a plan and summarize it with the runs in a folder; of a search, examples of what it may propose.

    Args:
        workers: how many runs at a time the user wants; None for as many as fit.
        measure: whether to measure what is not known.

    Raises:
        UserError: a configuration is wrong.
    """
    plan = probe_plan(asked)
    checked = check_plan(plan, processes)
    total = asked.space.trials if asked.space else len(plan.distinct_runs)
    obstacle = None
    try:
        slots = find_slots(plan.distinct_runs, checked.machine.devices, workers, total)
    except UserError as error:
        obstacle = error
        slots = DeviceSlots(max(1, min(workers or 1, total)), cores())
    outcomes = {run.id: read_outcome(out / run.id) for run in plan.distinct_runs}
    results = {name: outcome.result for name, outcome in outcomes.items() if outcome.result}
    proposals = None
    if asked.space is not None:
        states = [read_outcome(out / run.id).state for run in with_proposals(asked, out).distinct_runs]
        ended = sum(state in (State.FINISHED, State.PRUNED) for state in states)
        proposals = max(0, asked.space.trials - ended)
    estimates = estimate_runs(
        plan.distinct_runs,
        results if proposals is None else {},
        slots,
        checked.machine,
        out,
        processes if measure and obstacle is None else None,
        absent=checked.absent,
    )
    states_by_run = {name: outcome.state for name, outcome in outcomes.items()}
    return PlanSummary(plan, checked, slots, estimates, states_by_run, proposals, obstacle)
