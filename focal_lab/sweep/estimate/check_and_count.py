"""Checks the configurations of a plan, and counts parameters and multiply-accumulates."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from focal_lab._version import __version__
from focal_lab.errors import UserError
from focal_lab.sweep.estimate.equivalence import classes_given, count_key, covering, group_by_cell
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.request import CheckRequest, Cost, MachineSpecs
from focal_lab.utils.json_cache import add_to_cache, read_cache

COUNTS_FILE = "counts.json"
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


def check_plan(plan: Plan, processes: WarmProcesses, out: Path | None = None) -> CheckedPlan:
    """Check the configurations of a plan in a worker process, and count each network once.

    Args:
        out: folder with the cache of counts; None for none.

    Raises:
        UserError: a configuration is wrong; the message names the sweep file and the cell.
    """
    groups = group_by_cell(plan.runs)
    keys = [count_key(group[0].config) for group in groups]
    path = out / COUNTS_FILE if out is not None else None
    costs = _cached_costs(path) if path is not None else {}
    missing = {key for key in keys if key not in costs}
    request, numbers = _request([group[0] for group in groups], keys, missing)
    answer = processes.check(request)
    if answer.wrong is not None:
        number, reason = answer.wrong
        raise UserError(f"{reason}, for {groups[numbers[number]][0].cell.name}", file=plan.sweep.path)
    found = {keys[numbers[number]]: cost for number, cost in answer.costs.items()}
    absent = {_data_of(groups[numbers[number]][0]): why for number, why in answer.absent.items()}
    if path is not None:
        # what the images or the user's code decide may change by the next plan
        lasting = {key for key, (run, *_) in zip(keys, groups, strict=True) if _is_ours(run)}
        entries = {key: cost for key, cost in found.items() if key in lasting and cost.source == "options"}
        add_to_cache(path, {f"{key} {__version__}": asdict(cost) for key, cost in entries.items()})
    costs |= found
    return CheckedPlan(
        {run.id: costs[key] for key, group in zip(keys, groups, strict=True) for run in group},
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


def _request(first: Sequence[Run], keys: Sequence[str], missing: set[str]) -> tuple[CheckRequest, list[int]]:
    """What to check and count, and which run each configuration belongs to."""
    numbers = list(range(len(first)))
    if len(first) > _CHECKED_ALL:
        words = ([key] if key in missing else [] for key in keys)
        numbers = covering([(run.config, words) for run, words in zip(first, words, strict=True)])
    first_of = {keys[number]: place for place, number in reversed(list(enumerate(numbers)))}
    counted = frozenset(place for key, place in first_of.items() if key in missing)
    return CheckRequest(tuple(first[number].config for number in numbers), counted), numbers


def _cached_costs(path: Path) -> dict[str, Cost]:
    """Counts of this version."""
    found = {}
    for key, value in read_cache(path).items():
        name, _, version = key.partition(" ")
        if version == __version__ and isinstance(value, dict) and _is_cost(value):
            height, width = value["image_size"]
            found[name] = Cost(value["params"], float(value["gmacs"]), (height, width), "options")
    return found


def _is_cost(value: dict[str, Any]) -> bool:
    size = value.get("image_size")
    sized = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    return sized and type(value.get("params")) is int and type(value.get("gmacs")) in (int, float)


def _is_ours(run: Run) -> bool:
    """Whether only our version, and no data or code of the user's, decides the count."""
    ours = str(run.config["model"]["class_path"]).startswith("focal_lab.")
    return ours and "code" not in run.identity and classes_given(run.config)
