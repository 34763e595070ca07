"""Refuses settings that contradict the label of a row. Pure functions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.plan.cells import design_cells
from focal_lab.sweep.plan.settings import is_for_one_task, path_of
from focal_lab.sweep.spec.sweep_file import Sweep


@dataclass(frozen=True)
class _VariedLevel:
    """A level of a factor, or a range of a search; `key` is its dotted key in the sweep file."""

    label: str | None
    key: str
    settings: Mapping[str, Any]

    def place(self, setting: str) -> str:
        """`factors.net.Large (window_size)`, or `factors.window_size`."""
        return self.key if self.key.endswith(f".{setting}") else f"{self.key} ({setting})"


def refuse_overlaps(sweep: Sweep, overrides: Mapping[str, Any]) -> None:
    """Make sure that every cell is trained with what its labels say.

    Settings are compared by the key they set: `model.lr` is `model.init_args.lr`, and for classification
    `classification.model.lr`, too; a mapping such as `model.backbone_options` covers all keys in it.

    Args:
        sweep: two of its levels may set the same key if no cell has both, or if they agree. A default in its
            `set` may be changed by some levels, but not by all.
        overrides: settings of the command line, which take precedence over the levels.

    Raises:
        UserError: an override replaces a varied setting, a default is never used, two levels of a cell set
            the same key differently, or one names a key in two ways. The message names both.
    """
    varied = _varied(sweep)
    _refuse_twice(sweep, "set", sweep.settings)
    for levels in varied.values():
        for level in levels:
            _refuse_twice(sweep, level.key, level.settings)
        _refuse_overridden(sweep, levels, overrides)
        _refuse_unused(sweep, levels)
    for one, other in combinations(varied, 2):
        pairs: Iterator[tuple[_VariedLevel, _VariedLevel]] = product(varied[one], varied[other])
        rivals = [pair for pair in pairs if _rival_keys(sweep, *pair)]
        if rivals and sweep.search is None:
            # tuned settings have no label: they are in every cell
            together = {(cell.labels.get(one), cell.labels.get(other)) for cell in design_cells(sweep)}
            rivals = [pair for pair in rivals if (pair[0].label, pair[1].label) in together]
        for mine, theirs in rivals[:1]:
            key, other_key = _rival_keys(sweep, mine, theirs)[0]
            raise UserError(
                f"sets {key}, and so does {theirs.place(other_key)} in the same cell: the row would be "
                "labelled with a setting that is not trained; let only one of them set it",
                file=sweep.path,
                key=mine.key,
            )


def _varied(sweep: Sweep) -> dict[str, list[_VariedLevel]]:
    """Factor or range -> its levels, in order of precedence."""
    found: dict[str, list[_VariedLevel]] = {}
    for factor, levels in sweep.factors.items():
        found[factor] = [
            _VariedLevel(
                level.label,
                f"factors.{factor}" + ("" if list(level.settings) == [factor] else f".{level.label}"),
                level.settings,
            )
            for level in levels
        ]
    for name in sweep.search.ranges if sweep.search else ():
        found[name] = [_VariedLevel(None, f"search.ranges.{name}", {name: object()})]  # any value
    for name in sweep.tuning.ranges if sweep.tuning else ():
        found[name] = [_VariedLevel(None, f"tune.ranges.{name}", {name: object()})]
    return found


def _refuse_overridden(sweep: Sweep, levels: list[_VariedLevel], overrides: Mapping[str, Any]) -> None:
    for level, name in product(levels, overrides):
        for key, value in level.settings.items():
            if any(_replaces(name, key, value, task) for task in sweep.tasks):
                raise UserError(
                    f"{name}: {level.place(key)} of {sweep.path} varies this, so rows would be labelled "
                    "with a setting that is not trained; drop one of the two",
                    key="--set",
                )


def _refuse_unused(sweep: Sweep, levels: list[_VariedLevel]) -> None:
    for name, value in sweep.settings.items():
        tasks = [task for task in sweep.tasks if path_of(name, task)]
        if tasks and all(
            any(_replaces(key, name, value, task) for key in level.settings)
            for level in levels
            for task in tasks
        ):
            key = next(iter(levels[0].settings))
            raise UserError(
                f"is never used, because {levels[0].place(key)} varies this; drop one of the two",
                file=sweep.path,
                key=f"set.{name}",
            )


def _refuse_twice(sweep: Sweep, key: str, settings: Mapping[str, Any]) -> None:
    for (one, value), (other, _) in combinations(settings.items(), 2):
        # a key for one task takes precedence over one for all, whichever comes first
        same_kind = is_for_one_task(one) == is_for_one_task(other)
        if same_kind and any(_replaces(other, one, value, task) for task in sweep.tasks):
            raise UserError(f"{other} replaces {one}; drop one of the two", file=sweep.path, key=key)


def _rival_keys(sweep: Sweep, one: _VariedLevel, other: _VariedLevel) -> list[tuple[str, str]]:
    """Pairs of keys of two levels where the second replaces the first by another value."""
    return [
        (mine, theirs)
        for (mine, value), theirs in product(one.settings.items(), other.settings)
        for task in sweep.tasks
        if _replaces(theirs, mine, value, task)
        and (path_of(mine, task) != path_of(theirs, task) or repr(value) != repr(other.settings[theirs]))
    ]


def _replaces(later: str, earlier: str, value: Any, task: str) -> bool:
    """Whether a setting replaces an earlier one, or something inside its `value`."""
    theirs, mine = path_of(later, task), path_of(earlier, task)
    if not theirs or not mine:
        return False
    return mine[: len(theirs)] == theirs or (theirs[: len(mine)] == mine and _has(value, theirs[len(mine) :]))


def _has(value: Any, names: tuple[str, ...]) -> bool:
    """Whether nested mappings have a key; `init_args` may be left out."""
    for name in names:
        while isinstance(value, Mapping) and name not in value and "init_args" in value:
            value = value["init_args"]
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True
