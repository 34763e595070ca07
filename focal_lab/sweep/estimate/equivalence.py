"""Groups runs that cost the same: equal parameters, or equal time per step. Pure Python, no torch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import timedelta
from typing import Any

from focal_lab.sweep.plan.runs import Run, hash_of

# These change the weights, not the cost of a step.
_TRAINING = {"lr", "weight_decay", "betas", "warmup_epochs", "warmup_steps", "warmup_lr", "min_lr"}
_TRAINING |= {"milestones", "power", "label_smoothing", "backbone_checkpoint", "init_seed"}
_SEEDS = {"data_seed", "order_seed"}
# How many images the data serve, not how large they are.
_SERVED = {"batch_size", "num_workers", "seed", "num_train_images", "num_val_images", "num_test_images"}
_SERVED |= _SEEDS
_LENGTH = {"max_epochs", "max_steps", "min_epochs", "min_steps", "max_time"}


def group_by_cell(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs grouped by cell and task: a group differs by the seed alone."""
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((id(run.cell), run.task), []).append(run)
    return list(groups.values())


def shape_of(identity: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """A hash of what decides the time of a step, of a validation, and the memory of a run or result."""
    workers = (config["data"].get("init_args") or {}).get("num_workers")
    shape = {
        "task": identity["task"],
        "network": _without(_TRAINING, identity["network"]),
        "model": _without(_TRAINING, identity["model"]),
        "data": _without(_SEEDS, identity["data"]) | {"num_workers": workers},
        "trainer": {key: value for key, value in identity.get("trainer", {}).items() if key not in _LENGTH},
    }
    return hash_of(shape)[:16]


def length_of(config: Mapping[str, Any]) -> tuple[str, float]:
    """How long a configuration trains: (steps or epochs, how many)."""
    return limits_of(config)[0]


def limits_of(config: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What ends a training, whichever comes first: `steps`, `epochs` (1000 by default), or both."""
    trainer = config.get("trainer") or {}
    if trainer.get("fast_dev_run"):
        return [("steps", int(trainer["fast_dev_run"]))]
    named = [("steps", trainer.get("max_steps")), ("epochs", trainer.get("max_epochs"))]
    limits = [(unit, float(most)) for unit, most in named if type(most) is int and most >= 0]
    return limits or [("epochs", 1000.0 if named[1][1] is None else math.inf)]


def time_limit(config: Mapping[str, Any]) -> float:
    """Seconds of `max_time`, days:hours:minutes:seconds or a mapping of such; infinite for none."""
    limit: Any = (config.get("trainer") or {}).get("max_time")
    if isinstance(limit, str):
        limit = dict(zip(("days", "hours", "minutes", "seconds"), limit.split(":"), strict=False))
    try:
        return timedelta(**{unit: float(many) for unit, many in limit.items()}).total_seconds()
    except (AttributeError, TypeError, ValueError):  # no limit, or one that Lightning refuses
        return math.inf


def count_key(config: Mapping[str, Any]) -> str:
    """A hash of what decides a run's parameters and multiply-accumulates."""
    model, data = config["model"], config["data"]
    options = _without(_TRAINING, model.get("init_args") or {})
    shown = {key: value for key, value in (data.get("init_args") or {}).items() if key not in _SERVED}
    return hash_of([model["class_path"], options, data["class_path"], shown])[:16]


def covering(runs: Sequence[Run]) -> list[Run]:
    """Runs that together have every network, and every value of every key, that any of them has."""
    seen: set[tuple[str, str]] = set()
    chosen = []
    for run in runs:
        where = f"{run.config['model']['class_path']} {run.config['data']['class_path']}"
        leaves = {(f"{where} {key}", value) for key, value in _leaves(run.config, "")}
        leaves.add(("network", count_key(run.config)))
        if leaves - seen:
            seen |= leaves
            chosen.append(run)
    return chosen


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Dotted keys with their values, and each mapping with its keys; without the seed."""
    if not isinstance(value, Mapping):
        yield name, repr(value)
        return
    yield name, repr(sorted(map(str, value)))
    for key, part in value.items():
        if name or key != "seed_everything":
            yield from _leaves(part, f"{name}.{key}")


def _without(names: Set[str], value: Any) -> Any:
    """A value without the keys of such names, however deep."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without(names, part) for key, part in value.items() if key not in names}
