"""Checks the configurations of a plan, and counts parameters and multiply-accumulates."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from focal_lab.errors import UserError
from focal_lab.sweep.estimate.equivalence import count_key, covering, group_by_cell
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.request import CheckRequest, Cost, MachineSpecs

# Of more configurations than these not all are checked, but every value of every key is.
_CHECKED_ALL = 40


@dataclass(frozen=True)
class CheckedPlan:
    """A plan whose configurations are valid.

    Attributes:
        costs: run ID -> cost.
        machine: where they were checked.
        absent: run ID -> which file of its data is not on this machine.
    """

    costs: dict[str, Cost]
    machine: MachineSpecs
    absent: dict[str, str] = field(default_factory=dict)


def check_plan(plan: Plan, processes: WarmProcesses) -> CheckedPlan:
    """Check the configurations of a plan in a worker process, and count each network once.

    Raises:
        UserError: a configuration is wrong; the message names the sweep file and the cell.
    """
    groups = group_by_cell(plan.runs)
    runs = [group[0] for group in groups]
    if len(runs) > _CHECKED_ALL:
        runs = covering(runs)
    counted: dict[str, int] = {}
    for number, run in enumerate(runs):
        counted.setdefault(count_key(run.config), number)
    answer = processes.check(CheckRequest(tuple(run.config for run in runs), frozenset(counted.values())))
    if answer.wrong is not None:
        number, reason = answer.wrong
        raise UserError(f"{reason}, for {runs[number].cell.name}", file=plan.sweep.path)
    absent = {_data_of(runs[number]): reason for number, reason in answer.absent.items()}
    costs: dict[str, Cost] = {}
    for group in groups:
        cost = answer.costs[counted[count_key(group[0].config)]]
        costs |= dict.fromkeys((run.id for run in group), cost)
    return CheckedPlan(
        costs,
        answer.machine,
        {run.id: absent[_data_of(run)] for run in plan.runs if _data_of(run) in absent} if absent else {},
    )


def check_here(runs: Iterable[Run], processes: WarmProcesses) -> MachineSpecs:
    """Check in a worker process that this machine can train runs that were planned elsewhere.

    Raises:
        UserError: their data are not here, or something else that a run needs at its start.
    """
    first = list({_data_of(run): run for run in runs}.values())
    answer = processes.check(CheckRequest(tuple(run.config for run in first), frozenset()))
    problems = dict([answer.wrong] if answer.wrong is not None else []) | answer.absent
    for number, reason in problems.items():
        raise UserError(f"{reason}, for {first[number].cell.name}")
    return answer.machine


def _data_of(run: Run) -> str:
    return repr(run.config["data"])
