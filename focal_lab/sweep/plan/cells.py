"""Factors and levels to cells: pure functions, in the order of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.spec.sweep_file import MOST_RUNS, Sweep


@dataclass(frozen=True)
class Cell:
    """One combination of levels.

    Attributes:
        labels: factor -> label, in the sweep's order.
        settings: configuration keys that its levels set, later factors over earlier ones.
    """

    labels: dict[str, str]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """`Focal-Tiny, 14`: the labels in a row."""
        return ", ".join(self.labels.values())


def design_cells(sweep: Sweep) -> tuple[Cell, ...]:
    """All cells of a sweep.

    Raises:
        UserError: nothing is left after the exclusions.
    """
    if sweep.cells:
        combinations = list(sweep.cells)
    elif sweep.design == "one_factor":
        combinations = _one_factor(sweep)
    else:
        sizes = {name: len(levels) for name, levels in sweep.factors.items()}
        _refuse_many(sweep, prod(sizes.values()), "cells", sizes)
        names = list(sweep.factors)
        labels = [[level.label for level in sweep.factors[name]] for name in names]
        combinations = [dict(zip(names, row, strict=True)) for row in product(*labels)]
    settings = {
        name: {level.label: level.settings for level in levels} for name, levels in sweep.factors.items()
    }
    kept = [labels for labels in combinations if not any(_matches(labels, rule) for rule in sweep.exclude)]
    if not kept:
        raise UserError("excludes every cell", file=sweep.path, key="exclude")
    sizes = {"cells": len(kept), "tasks": len(sweep.tasks), "seeds": len(sweep.seeds)}
    _refuse_many(sweep, prod(sizes.values()), "runs", sizes)
    return tuple(_cell(settings, labels) for labels in kept)


def _refuse_many(sweep: Sweep, count: int, what: str, sizes: Mapping[str, int]) -> None:
    """Raises UserError at once for a plan that would take hours to make."""
    if count > MOST_RUNS:
        factors = " x ".join(f"{size:,} ({name})" for name, size in sizes.items())
        raise UserError(
            f"{factors} are {count:,} {what}, more than the {MOST_RUNS:,} of a plan; use fewer levels or "
            "seeds, design: one_factor, or a list of cells",
            file=sweep.path,
            key="factors",
        )


def _one_factor(sweep: Sweep) -> list[dict[str, str]]:
    """The first level of every factor, then each other level with the rest at the first."""
    baseline = {name: levels[0].label for name, levels in sweep.factors.items()}
    return [baseline] + [
        baseline | {name: level.label} for name, levels in sweep.factors.items() for level in levels[1:]
    ]


def _cell(levels: Mapping[str, Mapping[str, Mapping[str, Any]]], labels: Mapping[str, str]) -> Cell:
    """A cell from its labels; `levels` has what each level of each factor sets."""
    settings: dict[str, Any] = {}
    for name in levels:
        settings |= levels[name][labels[name]]
    return Cell({name: labels[name] for name in levels}, settings)


def _matches(labels: Mapping[str, str], rule: Mapping[str, str]) -> bool:
    return all(labels[name] == label for name, label in rule.items())
