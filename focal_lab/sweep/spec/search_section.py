"""The section `search` of a sweep file: ranges to search, instead of a grid."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from focal_lab.errors import UserError, known_names, one_of
from focal_lab.sweep.spec.checks import check_keys, choice, mapping, switch, whole
from focal_lab.sweep.spec.columns import COLUMNS, MAIN

SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "successive_halving")
DIRECTIONS = ("maximize", "minimize")
_KEYS = ("trials", "ranges", "sampler", "pruning", "objectives", "seed")
_RANGE_KEYS = ("low", "high", "log", "step")
# columns of which less is better
_MINIMIZED = ("params", "gmacs", "loss", "train_seconds", "peak_memory_mb")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers where all of it is integer.

    Attributes:
        log: propose as many between 0.001 and 0.01 as between 0.01 and 0.1.
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
class SearchSection:
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


def load_search(raw: Any, task: str) -> tuple[SearchSection, dict[str, Any]]:
    """Check the section.

    Args:
        raw: the section.
        task: the sweep's task; its main metric is the default objective.

    Returns:
        The search, and those ranges that are lists or labels: factors of the sweep.

    Raises:
        UserError: a key or value is wrong.
    """
    section = mapping(raw, "search")
    check_keys(section, _KEYS, "a search", "search")
    ranges, factors = {}, {}
    for name, value in mapping(section.get("ranges"), "search.ranges").items():
        if isinstance(value, Mapping) and set(value) & {"low", "high"}:
            ranges[str(name)] = load_range(value, f"search.ranges.{name}")
        else:
            factors[str(name)] = value
    search = SearchSection(
        trials=whole(section.get("trials"), 1, "number of runs", "search.trials"),
        ranges=ranges,
        objectives=_objectives(section.get("objectives"), task),
        sampler=choice(section.get("sampler", "tpe"), SAMPLERS, "search.sampler"),
        pruning=choice(section.get("pruning") or "none", PRUNERS, "search.pruning"),
        seed=whole(section.get("seed", 0), 0, "seed", "search.seed"),
    )
    main = MAIN[task]
    if search.pruning != "none" and search.objectives != {main: "maximize"}:
        raise UserError(
            f"compares runs by their validation {main}, so {main} must be the only objective",
            key="search.pruning",
        )
    return search, factors


def load_range(raw: Mapping[str, Any], key: str) -> Range:
    """Check `{low: ..., high: ...}`; raises UserError if a key or value is wrong."""
    check_keys(raw, _RANGE_KEYS, "a range", key)
    for name in ("low", "high"):
        if not _is_number(raw.get(name)):
            raise UserError(f"{raw.get(name)!r} is not a number", key=f"{key}.{name}")
    low, high, step = raw["low"], raw["high"], raw.get("step")
    log = switch(raw.get("log", False), f"{key}.log")
    if step is not None and (not _is_number(step) or step <= 0):
        raise UserError(f"{step!r} is not a positive number", key=f"{key}.step")
    if not low < high:
        raise UserError(f"low {low} is not below high {high}", key=key)
    if log and low <= 0:
        raise UserError(f"low {low} has no logarithm; use a positive one", key=key)
    if log and step is not None:
        raise UserError("has both log and step; drop one", key=key)
    if step is not None:
        width, each = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
        if width % each:
            below = Decimal(str(low)) + width // each * each
            ends = one_of([end for end in (below, below + each) if end > Decimal(str(low))])
            raise UserError(
                f"{step} does not divide the range from {low} to {high}; use high: {ends}", key=f"{key}.step"
            )
    return Range(low, high, log, step)


def _objectives(raw: Any, task: str) -> dict[str, str]:
    key = "search.objectives"
    allowed = [name for name, column in COLUMNS.items() if column.task in (None, task)]
    if raw is None:
        return {MAIN[task]: "maximize"}
    if isinstance(raw, list):
        raw = {name: "minimize" if name in _MINIMIZED else "maximize" for name in raw}
    objectives = {str(name): direction for name, direction in mapping(raw, key).items()}
    if not objectives:
        raise UserError("is empty; name at least one objective", key=key)
    for name, direction in objectives.items():
        if name not in allowed:
            what = f"{name} is not an objective of {task}"
            raise UserError(what + known_names(name, allowed), key=key)
        choice(direction, DIRECTIONS, f"{key}.{name}")
    return objectives


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
