"""What two runs have in common and what not: configuration, network, metrics, curves, environment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.housekeeping.inventory import RUNNING, is_running, read_needs
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import CONFIG_FILE, known_values
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.training.history_file import Point, read_history
from focal_lab.utils.yaml import load_yaml

Value = str | int | float | bool | None
# what is no measurement of the run itself
_COSTS = ("params", "gmacs", "train_seconds", "images_per_second", "peak_memory_mb")
_LOSS, _RATE = "train/loss", "lr"


@dataclass(frozen=True)
class Side:
    """A run that is compared.

    Attributes:
        state: a State, or `running`.
        labels: factor -> level label, where a sweep tells.
        reason: why there is no result; None where nothing tells.
        last_line: the last words of a failed run.
        started, finished: of a finished run.
        config: setting -> value; empty where it left none.
        network: what the options of a focal backbone came to, stage by stage; empty without a result.
        metrics: name -> value, costs too; params in millions.
        points: the curves.
        environment: what it ran on; empty without a result.
        tested_on: which images, labels and classes its metrics are of; empty where that is not known.
    """

    run: str
    state: str
    task: str | None
    seed: int | None
    sweeps: tuple[str, ...]
    labels: dict[str, str]
    reason: str | None
    last_line: str | None
    started: str | None
    finished: str | None
    config: dict[str, Value]
    network: dict[str, Value]
    metrics: dict[str, float]
    points: tuple[Point, ...]
    environment: dict[str, Value]
    tested_on: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Settings of two runs.

    Attributes:
        different: name -> (first, second); None is what a run does not have.
        same: how many are equal.
    """

    different: dict[str, tuple[Value, Value]]
    same: int


@dataclass(frozen=True)
class CurvePair:
    """A value of two runs at the epochs that both have."""

    name: str
    epochs: tuple[float, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]


def read_side(folder: Path) -> Side:
    """All that a run's folder, and the plans beside it, tell of it."""
    outcome = read_outcome(folder)
    result = outcome.result
    needs = read_needs(folder.parent)
    task, seed, labels = needs.known.get(folder.name, (None, None, {}))
    record = result or outcome.failure
    if record is not None:
        task, seed = record.task, record.seed
    state = str(outcome.state)
    running = outcome.state is not State.FINISHED and is_running(folder)
    metrics = known_values(result) if result else {}
    return Side(
        run=folder.name,
        state=RUNNING if running else state,
        task=task,
        seed=seed,
        sweeps=tuple(needs.sweeps.get(folder.name, ())),
        labels=labels,
        reason=None if running else outcome.reason,
        last_line=None if running else outcome.last_line,
        started=result.started if result else None,
        finished=result.finished if result else None,
        config=_settings(outcome, folder),
        network=_network(result.identity) if result else {},
        metrics={name: value * _scale(name) for name, value in metrics.items()},
        points=tuple(read_history(folder)),
        environment=_environment(outcome),
        tested_on=dict(result.tested_on) if result else {},
    )


def compare(first: Mapping[str, Value], second: Mapping[str, Value]) -> Section:
    """Two mappings; 1 and 1.0 are the same, 1 and true are not."""
    names = list(dict.fromkeys([*first, *second]))
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    different = {
        name: (one, other)
        for name, (one, other) in pairs.items()
        if one != other
        or isinstance(one, bool) != isinstance(other, bool)
        or (name in first) != (name in second)
    }
    return Section(different, len(names) - len(different))


def curve_pairs(first: Side, second: Side) -> list[CurvePair]:
    """The curves that both left, the main metric first, at the epochs that both have."""
    ones, others = ({point.epoch: point.values for point in side.points} for side in (first, second))
    names = {name for values in ones.values() for name in values}
    names &= {name for values in others.values() for name in values}
    main = [f"val/{MAIN[side.task]}" for side in (first, second) if side.task in MAIN]
    order = {name: place for place, name in enumerate([*main, _LOSS])}
    pairs = []
    for name in sorted(names, key=lambda name: (order.get(name, len(order)), name == _RATE, name)):
        epochs = [epoch for epoch in ones if name in ones[epoch] and name in others.get(epoch, {})]
        values = [tuple(side[epoch][name] for epoch in epochs) for side in (ones, others)]
        pairs.append(CurvePair(name, tuple(epochs), values[0], values[1]))
    return pairs


def flat_settings(value: Any, name: str = "") -> dict[str, Value]:
    """A configuration as dotted keys, as sweep files write them: `init_args` left out, lists in one piece."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Value] = {}
        for key, part in value.items():
            inner = name if key == "init_args" else f"{name}.{key}" if name else str(key)
            found |= flat_settings(part, inner)
        return found
    plain = value is None or isinstance(value, str | int | float | bool)
    return {name: value if plain else json.dumps(value, default=str)}


def _settings(outcome: Outcome, folder: Path) -> dict[str, Value]:
    """From the result; of a run without one, from what it was started with."""
    if outcome.result is not None:
        config: Mapping[str, Any] = outcome.result.config
        needs = outcome.result.identity.get("needs")
        code = outcome.result.identity.get("code") or {}
        own = {f"code of {name}": digest for name, digest in code.items()} | (
            {"needs": needs} if needs else {}
        )
        return flat_settings(config) | own
    try:
        return flat_settings(load_yaml(folder / CONFIG_FILE))
    except (OSError, UserError):
        return {}


def _network(identity: Mapping[str, Any]) -> dict[str, Value]:
    """`window: 14 7 4 2`; empty for a backbone of somebody else."""
    network = identity.get("network")
    if not isinstance(network, Mapping):
        return {}
    found = flat_settings({key: value for key, value in network.items() if key != "stages"})
    stages = network.get("stages")
    if isinstance(stages, Sequence) and all(isinstance(stage, Mapping) for stage in stages):
        names = dict.fromkeys(key for stage in stages for key in stage if key != "stage")
        for name in names:
            found[f"{name} by stage"] = " ".join(_short(stage.get(name)) for stage in stages)
            if name == "levels":  # the fine one counts, as in `focal_levels` and the plan
                counts = [1 + len(stage.get(name) or ()) for stage in stages]
                found[f"{name} by stage"] = " ".join(map(str, counts))
    return found


def _short(value: Any) -> str:
    """14 for [14, 14], 14x7 for [14, 7], how many for another list."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return str(len(value)) if isinstance(value, list) else str(value)


def _environment(outcome: Outcome) -> dict[str, Value]:
    result = outcome.result
    if result is None:
        return {}
    found: dict[str, Value] = dict(result.versions)
    found["commit"] = result.git.get("commit")
    found["uncommitted changes"] = result.git.get("dirty")
    for state in result.git.get("user_code", []):
        found[f"commit of {state['folder']}"] = state["commit"]
        found[f"uncommitted changes of {state['folder']}"] = state["dirty"]
    return found | {"hardware": result.hardware}


def _scale(name: str) -> float:
    return COLUMNS[name].scale if name in _COSTS else 1.0
