"""Finds levels of a factor that differ in more than one setting, so that its effect has several causes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES, FocalOptions, identity, per_stage
from focal_lab.backbones.presets import preset_options
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.plan.settings import path_of
from focal_lab.sweep.spec.sweep_file import Level

_PER_STAGE = ("num_heads", "window_size", "focal_levels", "focal_windows", "expand_sizes", "use_shift")
_BACKBONE = "backbone"
_OURS = frozenset(OPTION_NAMES)
# Longer values are not printed.
_MOST_LETTERS = 24


@dataclass(frozen=True)
class Confound:
    """A factor whose effect is not that of a single setting.

    Attributes:
        levels: labels of the levels that differ in several settings from another one.
        all_levels: whether any two levels that were compared do.
        settings: what differs, as it is written in a sweep file -> its values, in the order of the levels.
        chosen: whether the levels set all of them by name, as opposed to taking them from a backbone.
    """

    factor: str
    levels: tuple[str, ...]
    all_levels: bool
    settings: dict[str, tuple[Any, ...]]
    chosen: bool

    def sentence(self, printed: Mapping[str, str] | None = None) -> str:
        """`backbone: Swin-Tiny and Focal-Tiny differ in several settings: downsample (merge, conv), ...`.

        Args:
            printed: label -> how it is printed, where that is not the label itself.
        """
        which = " and ".join((printed or {}).get(label, label) for label in self.levels)
        if len(self.levels) > 2:
            which = "levels" if self.all_levels else "some levels"
        listed = ", ".join(f"{name}{_values(values)}" for name, values in self.settings.items())
        if self.chosen:
            return f"{self.factor}: {which} differ in several settings, as the sweep file has it: {listed}."
        return (
            f"{self.factor}: {which} differ in several settings: {listed}; an effect of {self.factor} is not "
            "the effect of one of them."
        )


def find_confounds(factors: Mapping[str, Sequence[Level]], runs: Sequence[Run]) -> tuple[Confound, ...]:
    """The factors of a sweep that vary several settings at once.

    Compared are cells that differ in the level of one factor only: each level with the first one and with
    the one before it. Settings count as they take effect: an option that is without effect in one of the two
    networks (the pooling of a network without coarse levels) is not a difference, nor is what follows from
    another option (windows that are cut to the map). Backbones that are not ours differ in one setting,
    their name.

    Args:
        factors: of the sweep; a search's ranges are not among them.
        runs: of the plan, or examples of a search.
    """
    described: dict[tuple[Any, ...], _Described] = {}
    for run in runs:  # seeds are alike
        key = (*run.cell.labels.values(), run.task)
        if factors and key not in described:
            described[key] = _Described(run)
    found = []
    for factor, levels in factors.items():
        groups: dict[tuple[Any, ...], list[_Described]] = {}
        for one in described.values():
            others = (label for name, label in one.run.cell.labels.items() if name != factor)
            groups.setdefault((*others, one.run.task), []).append(one)
        confound = _confound(factor, levels, [pair for group in groups.values() for pair in _pairs(group)])
        if confound is not None:
            found.append(confound)
    return tuple(found)


class _Described:
    """A run with what is compared: options of a focal backbone in JSON, and other settings."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.options = None if run.stages is None else _encoded(run)
        self.settings = _settings(run)


_Pair = tuple[_Described, _Described]


def _pairs(group: Sequence[_Described]) -> Iterator[_Pair]:
    for place, one in enumerate(group):
        if place:
            yield group[0], one
        if place > 1:
            yield group[place - 1], one


def _confound(factor: str, levels: Sequence[Level], pairs: Iterable[_Pair]) -> Confound | None:
    named: dict[str, dict[str, Any]] = {level.label: level.settings for level in levels}
    involved: set[str] = set()
    compared = several = 0
    settings: dict[str, dict[str, Any]] = {}
    chosen = True
    for one, other in pairs:
        differing = _differing(one, other)
        compared += 1
        if len(differing) < 2:
            continue
        several += 1
        labels = [run.cell.labels[factor] for run in (one.run, other.run)]
        involved |= set(labels)
        set_here = {path_of(key, one.run.task) for label in labels for key in named.get(label, {})}
        for name, values in differing.items():
            # another backbone is more than one setting, even if only its name is written
            chosen = chosen and name != _BACKBONE and path_of(name, one.run.task) in set_here
            # by their words, because a list cannot be a key
            settings.setdefault(name, {}).update({_word(value): value for value in values})
    if not several:
        return None
    return Confound(
        factor,
        tuple(label for label in named if label in involved),
        several == compared,
        {name: tuple(values.values()) for name, values in settings.items()},
        chosen,
    )


def _differing(one: _Described, other: _Described) -> dict[str, tuple[Any, Any]]:
    """Setting -> its two values, of the settings in which two runs differ."""
    found: dict[str, tuple[Any, Any]] = {}
    if one.options is None or other.options is None:
        if one.run.backbone != other.run.backbone:
            found[_BACKBONE] = (one.run.backbone, other.run.backbone)
    elif one.options != other.options:
        found |= _differing_options(one.options, other.options)
    if one.settings != other.settings:
        mine, theirs = one.settings, other.settings
        found |= {
            name: (value, theirs.get(name)) for name, value in mine.items() if value != theirs.get(name)
        }
        found |= {
            name: (None, theirs[name]) for name in theirs if name not in mine and theirs[name] is not None
        }
    return found


def _encoded(run: Run) -> str:
    options = run.config["model"]["init_args"].get("backbone_options") or {}
    return _encoded_options(run.backbone, json.dumps({key: options[key] for key in options if key in _OURS}))


@lru_cache(maxsize=4096)
def _encoded_options(preset: str, changed: str) -> str:
    """All options of a preset with some of them changed, in JSON, values per stage as lists."""
    options = preset_options(preset, json.loads(changed))
    values = {entry.name: getattr(options, entry.name) for entry in fields(FocalOptions)}
    stages = len(options.stages)
    return json.dumps(values | {name: per_stage(name, values[name], stages) for name in _PER_STAGE})


@lru_cache(maxsize=4096)
def _differing_options(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """Options that differ and take effect in both networks; their values, one number for equal stages."""
    mine, theirs = json.loads(one), json.loads(other)
    return {
        name: (_short(name, mine[name]), _short(name, theirs[name]))
        for name in OPTION_NAMES
        if mine[name] != theirs[name]
        and _matters(mine, name, theirs[name])
        and _matters(theirs, name, mine[name])
    }


def _matters(options: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a network is another one with this value of an option."""
    network = FocalOptions(**options)
    try:
        return identity(replace(network, **{name: value})) != identity(network)
    except ValueError:  # the value does not go with the other options
        return True


def _settings(run: Run) -> dict[str, Any]:
    """Settings of the model but for the backbone, of the data and the trainer, as sweep files name them."""
    found: dict[str, Any] = {}
    for section in ("model", "data"):
        described = run.identity.get(section) or {}
        found[f"{section}.class_path"] = described.get("class_path")
        found |= {f"{section}.{key}": value for key, value in (described.get("init_args") or {}).items()}
    found |= {f"trainer.{key}": value for key, value in (run.identity.get("trainer") or {}).items()}
    others = (run.identity.get("network") or {}).get("others") or {}
    return found | {f"model.backbone_options.{key}": value for key, value in others.items()}


def _short(name: str, value: Any) -> Any:
    """The value of an option; of an option per stage the one that all stages have, if they do."""
    return value[0] if name in _PER_STAGE and len(set(value)) == 1 else value


def _values(values: Sequence[Any]) -> str:
    """` (merge, conv)`; empty if a value is long."""
    words = [_word(value) for value in values]
    return "" if any(len(word) > _MOST_LETTERS for word in words) else f" ({', '.join(words)})"


def _word(value: Any) -> str:
    """`true`, `2-2-6-2`, `none`."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return "-".join(map(_word, value)) if isinstance(value, list) else str(value)
