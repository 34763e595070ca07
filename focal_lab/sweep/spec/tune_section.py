"""The section `tune` of a sweep file: every cell and seed tries as many settings, and keeps the best.

The best is the one with the highest validation metric, so that test images choose nothing. All cells of a
seed try the same settings, and each seed has its own: the interval over seeds includes the uncertainty of the
choice.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.spec.checks import check_keys, mapping, whole
from focal_lab.sweep.spec.search_section import Range, load_range

_KEYS = ("trials", "ranges", "seed")
# Digits of a drawn number, as of a search's proposals.
_DIGITS = 4
# How often a draw that was made before is drawn again.
_MOST_DRAWS = 1000


@dataclass(frozen=True)
class Tuning:
    """How each cell is tuned.

    Attributes:
        trials: settings that each cell and seed tries, 2 or more.
        ranges: setting -> its numbers, or a list of values.
        seed: of the draws.
    """

    trials: int
    ranges: dict[str, Range | tuple[Any, ...]] = field(default_factory=dict)
    seed: int = 0

    def draws(self, seed: int) -> list[dict[str, Any]]:
        """The settings that a seed of every cell tries; all different, if the ranges have as many."""
        found: list[dict[str, Any]] = []
        source = random.Random(f"{self.seed} {seed}")  # the same on every machine
        for _ in range(_MOST_DRAWS):
            drawn = {name: _draw(source, numbers) for name, numbers in self.ranges.items()}
            if drawn not in found:
                found.append(drawn)
            if len(found) == self.trials:
                break
        return found


def load_tuning(raw: Any) -> Tuning | None:
    """Check the section; None if there is none.

    Raises:
        UserError: a key or value is wrong, or the ranges have fewer combinations than trials.
    """
    if raw is None:
        return None
    section = mapping(raw, "tune")
    check_keys(section, _KEYS, "tune", "tune")
    trials = whole(section.get("trials"), 2, "number of settings to try", "tune.trials")
    ranges: dict[str, Range | tuple[Any, ...]] = {}
    for name, value in mapping(section.get("ranges"), "tune.ranges").items():
        ranges[str(name)] = _range(value, f"tune.ranges.{name}")
    if not ranges:
        raise UserError(
            "names no setting to tune (use ranges: {model.lr: {low: ..., high: ...}})", key="tune"
        )
    tuning = Tuning(trials, ranges, whole(section.get("seed", 0), 0, "seed", "tune.seed"))
    combinations = len(tuning.draws(0))
    if combinations < trials:
        raise UserError(
            f"{trials} are more than the {combinations} combinations of the ranges", key="tune.trials"
        )
    return tuning


def _range(value: Any, key: str) -> Range | tuple[Any, ...]:
    if isinstance(value, Mapping):
        return load_range(value, key)
    if isinstance(value, list) and len(value) > 1 and all(value.count(one) == 1 for one in value):
        return tuple(value)
    raise UserError(f"{value!r} is neither {{low: ..., high: ...}} nor a list of different values", key=key)


def _draw(source: random.Random, numbers: Range | tuple[Any, ...]) -> Any:
    if isinstance(numbers, tuple):
        return source.choice(numbers)
    if numbers.count is not None and not numbers.log:
        drawn = source.choice(numbers.values())
        return drawn if numbers.whole else float(f"{drawn:.12g}")
    place = source.random()
    if not numbers.log:
        value = numbers.low + place * (numbers.high - numbers.low)
    else:
        value = exp(log(numbers.low) + place * (log(numbers.high) - log(numbers.low)))
    rounded = float(f"{value:.{_DIGITS}g}")
    return round(rounded) if numbers.whole else rounded
