"""Reads two runs and compares their settings, networks, metrics, curves and environments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.data.option_names import recorded_config
from focal_lab.errors import UserError
from focal_lab.report.table.long_table import flat_settings
from focal_lab.sweep.housekeeping.inventory import RUNNING, read_needs
from focal_lab.sweep.run_folder.layout import CONFIG_FILE, is_running
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import COSTS, known_values
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.training.history_file import Point, read_history
from focal_lab.utils.yaml import load_yaml

Value = str | int | float | bool | None
# epoch, first, second
Points = tuple[float, float, float]


@dataclass(frozen=True)
class ComparedRun:
    """One of the two runs; what is unknown is None or empty.

    Attributes:
        about: task, seed, sweeps, labels, state (a State, or `running`), reason, last_line, and times.
        configuration: setting -> value.
        network: the options of a focal backbone as resolved, stage by stage.
        environment: versions, commits and hardware.
        tested_on: images, labels and classes that the metrics are of.
        metrics: name -> value, costs included; params in millions.
    """

    run: str
    about: dict[str, Any]
    configuration: dict[str, Value]
    network: dict[str, Value] = field(default_factory=dict)
    environment: dict[str, Value] = field(default_factory=dict)
    tested_on: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    points: tuple[Point, ...] = ()


def read_run(folder: Path) -> ComparedRun:
    """A run from its folder and the plans beside it."""
    outcome = read_outcome(folder)
    result = outcome.result
    needs = read_needs(folder.parent)
    task, seed, labels = needs.known.get(folder.name, (None, None, {}))
    if record := result or outcome.failure:
        task, seed = record.task, record.seed
    running = outcome.state is not State.FINISHED and is_running(folder)
    about = {
        "task": task,
        "seed": seed,
        "sweeps": list(needs.sweeps.get(folder.name, ())),
        "labels": labels,
        "state": RUNNING if running else str(outcome.state),
        "reason": None if running else outcome.reason,
        "last_line": None if running else outcome.last_line,
        "started": result.started if result else None,
        "finished": result.finished if result else None,
    }
    points = tuple(read_history(folder))
    if result is None:
        try:
            planned = flat_settings(recorded_config(load_yaml(folder / CONFIG_FILE)))
        except UserError:
            planned = {}
        return ComparedRun(folder.name, about, planned, points=points)
    own = {f"code of {name}": digest for name, digest in (result.identity.get("code") or {}).items()}
    if needed := result.identity.get("needs"):
        own["needs"] = needed
    return ComparedRun(
        folder.name,
        about,
        flat_settings(result.config) | own,
        _network(result.identity),
        _environment(outcome),
        dict(result.tested_on),
        {
            name: value * (COLUMNS[name].scale if name in COSTS else 1)
            for name, value in known_values(result).items()
        },
        points,
    )


def compare(
    first: Mapping[str, Value], second: Mapping[str, Value]
) -> tuple[dict[str, tuple[Value, Value]], int]:
    """Settings that differ, as name -> (first, second), and how many are the same.

    1 and 1.0 are the same, 1 and true are not, nor are null and no such setting.
    """
    names = list(dict.fromkeys([*first, *second]))
    different = {}
    for name in names:
        one, other = first.get(name), second.get(name)
        kinds = isinstance(one, bool) != isinstance(other, bool)
        if one != other or kinds or (name in first) != (name in second):
            different[name] = (one, other)
    return different, len(names) - len(different)


def common_curves(first: ComparedRun, second: ComparedRun) -> dict[str, list[Points]]:
    """The curves that both runs have at their common epochs, the main metric first, then the loss."""
    ones, others = ({point.epoch: point.values for point in run.points} for run in (first, second))
    curves: dict[str, list[Points]] = {}
    for epoch in (epoch for epoch in ones if epoch in others):
        for name in ones[epoch].keys() & others[epoch].keys():
            curves.setdefault(name, []).append((epoch, ones[epoch][name], others[epoch][name]))
    main = [f"val/{metric}" for metric in MAIN.values()]
    names = sorted(curves, key=lambda name: (name not in main, name != "train/loss", name))
    return {name: curves[name] for name in names}


def _network(identity: Mapping[str, Any]) -> dict[str, Value]:
    """`window by stage: 14 7 4 2`; empty for a backbone that is not ours."""
    network = identity.get("network")
    if not isinstance(network, Mapping):
        return {}
    found = flat_settings({key: value for key, value in network.items() if key != "stages"})
    stages = network.get("stages") or []
    for name in dict.fromkeys(key for stage in stages for key in stage if key != "stage"):
        values = [_short(stage.get(name)) for stage in stages]
        if name == "levels":  # the fine level counts, as in `focal_levels` and the plan
            values = [str(1 + len(stage.get(name) or ())) for stage in stages]
        found[f"{name} by stage"] = " ".join(values)
    return found


def _short(value: Any) -> str:
    """14 for [14, 14], 14x7 for [14, 7], the length of another list."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return str(len(value)) if isinstance(value, list) else str(value)


def _environment(outcome: Outcome) -> dict[str, Value]:
    result = outcome.result
    assert result is not None
    found: dict[str, Value] = dict(result.versions)
    found |= {"commit": result.git.get("commit"), "uncommitted changes": result.git.get("dirty")}
    for state in result.git.get("user_code", []):
        found[f"commit of {state['folder']}"] = state["commit"]
        found[f"uncommitted changes of {state['folder']}"] = state["dirty"]
    return found | {"hardware": result.hardware}
