"""The section `search` of a sweep file: ranges to look for the best in, instead of a grid."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from focal_lab.errors import UserError, one_of
from focal_lab.sweep.spec.columns import COLUMNS, MAIN

SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "successive_halving")
DIRECTIONS = ("maximize", "minimize")
_KEYS = ("trials", "ranges", "sampler", "pruning", "objectives", "seed")
_RANGE_KEYS = ("low", "high", "log", "step")
# of these, less is better
_COSTS = ("params", "gmacs", "loss", "train_seconds", "peak_memory_mb")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where all of it is whole.

    Attributes:
        log: as many proposals between 0.001 and 0.01 as between 0.01 and 0.1.
        step: None for any number in between.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only integers are meant."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @property
    def count(self) -> int | None:
        """How many numbers there are; None for any number in between."""
        if self.step is None and not self.whole:
            return None
        return round((self.high - self.low) / (self.step or 1)) + 1

    def values(self) -> list[float]:
        """The numbers, where `count` is known."""
        assert self.count is not None
        return [self.low + i * (self.step or 1) for i in range(self.count)]


@dataclass(frozen=True)
class Search:
    """How proposals are made.

    Attributes:
        trials: how many proposals are trained.
        ranges: setting -> its numbers. Factors of the sweep are searched, too, by their labels.
        objectives: column -> maximize or minimize; several of them give a Pareto front.
        sampler: tpe (tree-structured Parzen estimator, Bergstra et al. 2011) or random.
        pruning: none, or successive_halving (Li et al. 2018): the worse part of the runs is stopped early.
        seed: of the proposals, not of the trainings.
    """

    trials: int
    ranges: dict[str, Range]
    objectives: dict[str, str]
    sampler: str = "tpe"
    pruning: str = "none"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        ranges = {name: Range(**values) for name, values in raw["ranges"].items()}
        return cls(**dict(raw) | {"ranges": ranges})


def load_search(raw: Any, path: Path, task: str) -> tuple[Search, dict[str, Any]]:
    """Check the section.

    Args:
        raw: the section.
        path: the sweep file.
        task: the sweep's task; its main metric is the default objective.

    Returns:
        The search, and those ranges that are lists or labels: factors of the sweep.

    Raises:
        UserError: a key or value is wrong.
    """
    section = _mapping(raw, path, "search")
    for name in section:
        if name not in _KEYS:
            raise UserError(f"{name} is not a key of a search (use {one_of(_KEYS)})", file=path, key="search")
    ranges, factors = {}, {}
    for name, value in _mapping(section.get("ranges", {}), path, "search.ranges").items():
        if isinstance(value, Mapping) and set(value) & {"low", "high"}:
            ranges[str(name)] = _range(value, path, f"search.ranges.{name}")
        else:
            factors[str(name)] = value
    search = Search(
        trials=_count(section.get("trials"), path, "search.trials"),
        ranges=ranges,
        objectives=_objectives(section.get("objectives"), path, task),
        sampler=_choice(section.get("sampler", "tpe"), SAMPLERS, path, "search.sampler"),
        pruning=_choice(section.get("pruning") or "none", PRUNERS, path, "search.pruning"),
        seed=_seed(section.get("seed", 0), path),
    )
    main = MAIN[task]
    if search.pruning != "none" and search.objectives != {main: "maximize"}:
        raise UserError(
            f"compares the validation {main} of runs: with it the one objective must be {main}",
            file=path,
            key="search.pruning",
        )
    return search, factors


def _range(raw: Mapping[str, Any], path: Path, key: str) -> Range:
    for name in raw:
        if name not in _RANGE_KEYS:
            raise UserError(f"{name} is not a key of a range (use {one_of(_RANGE_KEYS)})", file=path, key=key)
    for name in ("low", "high"):
        if not _is_number(raw.get(name)):
            raise UserError(f"{raw.get(name)!r} is no number", file=path, key=f"{key}.{name}")
    low, high, log, step = raw["low"], raw["high"], raw.get("log", False), raw.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{log!r} is neither true nor false", file=path, key=f"{key}.log")
    if step is not None and (not _is_number(step) or step <= 0):
        raise UserError(f"{step!r} is no positive number", file=path, key=f"{key}.step")
    if not low < high:
        raise UserError(f"low {low} is not below high {high}", file=path, key=key)
    if log and low <= 0:
        raise UserError(f"low {low} has no logarithm; use a positive one", file=path, key=key)
    if log and step is not None:
        raise UserError("has both log and step; drop one", file=path, key=key)
    if step is not None:
        width, each = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
        if width % each:
            below = Decimal(str(low)) + width // each * each
            ends = one_of([end for end in (below, below + each) if end > Decimal(str(low))])
            raise UserError(
                f"{step} does not divide the range from {low} to {high}; use high: {ends}",
                file=path,
                key=f"{key}.step",
            )
    return Range(low, high, log, step)


def _objectives(raw: Any, path: Path, task: str) -> dict[str, str]:
    key = "search.objectives"
    there = [name for name, column in COLUMNS.items() if column.task in (None, task)]
    if raw is None:
        return {MAIN[task]: "maximize"}
    if isinstance(raw, list):
        raw = {name: "minimize" if name in _COSTS else "maximize" for name in raw}
    objectives = {str(name): direction for name, direction in _mapping(raw, path, key).items()}
    for name, direction in objectives.items():
        if name not in there:
            raise UserError(f"{name} is no objective of {task} (use {one_of(there)})", file=path, key=key)
        _choice(direction, DIRECTIONS, path, f"{key}.{name}")
    if not objectives:
        raise UserError("names none", file=path, key=key)
    return objectives


def _count(value: Any, path: Path, key: str) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{value!r} is no number of runs; use 1 or more", file=path, key=key)
    return value


def _seed(value: Any, path: Path) -> int:
    if type(value) is not int or value < 0:
        raise UserError(f"{value!r} is no seed; use 0 or more", file=path, key="search.seed")
    return value


def _choice(value: Any, allowed: tuple[str, ...], path: Path, key: str) -> str:
    if value not in allowed:
        raise UserError(f"{value!r} is unknown (use {one_of(allowed)})", file=path, key=key)
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(value: Any, path: Path, key: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{value!r} is no mapping", file=path, key=key)
    return value
