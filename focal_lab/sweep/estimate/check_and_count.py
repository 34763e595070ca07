"""Parameters, multiply-accumulates and correctness of the configurations of a plan."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from focal_lab._version import __version__
from focal_lab.errors import UserError
from focal_lab.sweep.estimate.cache import COUNTS_FILE, keep, recall
from focal_lab.sweep.estimate.equivalence import alike, classes_given, count_key, covering
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.survey import Check, Machine

# More configurations than these are not all checked, but every value of every key is.
_CHECKED_ALL = 40


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        params: learned numbers.
        gmacs: billions of multiply-accumulates for one image as it is evaluated.
        image_size: height and width of that image in px, as the network is fed it.
        source: what says so: "options", "images", or nothing: "assumed".
    """

    params: int
    gmacs: float
    image_size: tuple[int, int]
    source: str


@dataclass(frozen=True)
class Checked:
    """A plan whose configurations passed.

    Attributes:
        costs: run id -> cost.
        machine: where they were checked.
        absent: run id -> which file of its data is not on this machine.
    """

    costs: dict[str, Cost]
    machine: Machine
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def devices(self) -> int:
        """GPUs that torch sees."""
        return self.machine.devices


def check_plan(plan: Plan, processes: WarmProcesses, out: Path | None = None) -> Checked:
    """Check the configurations of a plan in a warm process, and count each network once.

    Args:
        out: folder where counts are kept from one plan to the next; None to keep none.

    Raises:
        UserError: a configuration is wrong; the message names the sweep file and the cell.
    """
    groups = alike(plan.runs)
    keys = [count_key(group[0].config) for group in groups]
    path = out / COUNTS_FILE if out is not None else None
    counts = _recalled(path) if path is not None else {}
    missing = dict.fromkeys(key for key in keys if key not in counts)
    order, numbers = _order([group[0] for group in groups], keys, missing)
    found: dict[str, Cost] = {}
    absent: dict[str, str] = {}
    machine: Machine | None = None
    for kind, value in _answers(order, processes):
        if kind == "machine":
            machine = value
        elif kind == "counted":
            found[keys[numbers[value[0]]]] = Cost(*value[1:])
        elif kind == "absent":
            absent[_data_of(groups[numbers[value[0]]][0])] = value[1]
        else:
            cell = groups[numbers[value[0]]][0].cell
            raise UserError(f"{value[1]}, for {cell.name}", file=plan.sweep.path)
    assert machine is not None, "it is the first message"
    counts |= found
    if path is not None:
        # files of data may change by the next plan, and images be there
        named = (_is_ours(group[0]) and classes_given(group[0].config) for group in groups)
        ours = {key for key, known in zip(keys, named, strict=True) if known}
        kept = {key: cost for key, cost in found.items() if key in ours and cost.source == "options"}
        keep(path, {_entry(key): asdict(cost) for key, cost in kept.items()})
    return Checked(
        {run.id: counts[key] for key, group in zip(keys, groups, strict=True) for run in group},
        machine,
        {run.id: absent[_data_of(run)] for group in groups for run in group if _data_of(run) in absent},
    )


def check_here(runs: Iterable[Run], processes: WarmProcesses) -> None:
    """Check in a warm process that this machine can train runs that were planned elsewhere.

    Raises:
        UserError: their data are not here, or something else of a run's start cannot be.
    """
    first = {_data_of(run): run for run in runs}
    cells = [run.cell.name for run in first.values()]
    order = Check(tuple(run.config for run in first.values()), frozenset())
    for kind, value in _answers(order, processes) if first else ():
        if kind in ("absent", "wrong"):
            raise UserError(f"{value[1]}, for {cells[value[0]]}")


def _answers(order: Check, processes: WarmProcesses) -> Iterator[tuple[str, Any]]:
    """The messages of a process that checks."""
    process, messages = processes.measure(order)
    try:
        while True:
            kind, value = messages.recv()
            if kind == "checked":
                return
            yield kind, value
    except EOFError as error:
        process.join()
        raise RuntimeError(f"checking the plan failed (exit status {process.exitcode})") from error
    finally:
        process.kill()
        messages.close()


def _data_of(run: Run) -> str:
    return repr(run.config["data"])


def _order(first: Sequence[Run], keys: Sequence[str], missing: dict[str, None]) -> tuple[Check, list[int]]:
    """What is to be checked and counted, and which of the runs each configuration is of."""
    if len(first) <= _CHECKED_ALL:
        numbers = list(range(len(first)))
    else:
        words = ([key] if key in missing else [] for key in keys)
        numbers = covering([(run.config, words) for run, words in zip(first, words, strict=True)])
    waiting, counted = dict(missing), []
    for place, number in enumerate(numbers):
        if keys[number] in waiting:
            del waiting[keys[number]]
            counted.append(place)
    return Check(tuple(first[number].config for number in numbers), frozenset(counted)), numbers


def _recalled(path: Path) -> dict[str, Cost]:
    """Counts of this version of ours."""
    found = {}
    for key, value in recall(path).items():
        name, _, version = key.partition(" ")
        if version == __version__ and isinstance(value, dict) and _is_cost(value):
            height, width = value["image_size"]
            found[name] = Cost(value["params"], float(value["gmacs"]), (height, width), "options")
    return found


def _entry(key: str) -> str:
    return f"{key} {__version__}"


def _is_cost(value: dict[str, Any]) -> bool:
    size = value.get("image_size")
    sized = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    return sized and type(value.get("params")) is int and type(value.get("gmacs")) in (int, float)


def _is_ours(run: Run) -> bool:
    """Whether the code that is counted changes with our version only: the user's may register a backbone."""
    return "code" not in run.identity and str(run.config["model"]["class_path"]).startswith("focal_lab.")
