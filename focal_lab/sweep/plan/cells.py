"""Factors and levels to cells: pure functions, in the order of the table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.spec.sweep_file import MOST_RUNS, Sweep


@dataclass(frozen=True)
class Cell:
    """One combination of levels: factor -> label, and the configuration keys that these levels set."""

    labels: dict[str, str]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """`Focal-Tiny, 14`."""
        return ", ".join(self.labels.values())


def design_cells(sweep: Sweep) -> tuple[Cell, ...]:
    """All cells of a sweep.

    Raises:
        UserError: all are excluded, or there are too many.
    """
    labels = {name: [level.label for level in levels] for name, levels in sweep.factors.items()}
    if sweep.cells:
        combinations = list(sweep.cells)
    elif sweep.design == "one_factor":
        first = {name: names[0] for name, names in labels.items()}
        changes = [{name: label} for name, names in labels.items() for label in names[1:]]
        combinations = [first, *(first | change for change in changes)]
    else:
        _refuse_many(sweep, "cells", {name: len(names) for name, names in labels.items()})
        combinations = [dict(zip(labels, row, strict=True)) for row in product(*labels.values())]
    kept = [cell for cell in combinations if not any(rule.items() <= cell.items() for rule in sweep.exclude)]
    if not kept:
        raise UserError("excludes every cell", file=sweep.path, key="exclude")
    counts = {"cells": len(kept), "tasks": len(sweep.tasks), "seeds": len(sweep.seeds)}
    _refuse_many(sweep, "runs", counts | ({"trials": sweep.tuning.trials} if sweep.tuning else {}))
    levels = {
        name: {level.label: level.settings for level in levels} for name, levels in sweep.factors.items()
    }
    cells = []
    for chosen in kept:
        settings: dict[str, Any] = {}
        for name in levels:
            settings |= levels[name][chosen[name]]
        cells.append(Cell({name: chosen[name] for name in levels}, settings))
    return tuple(cells)


def tuned_cells(sweep: Sweep, cell: Cell) -> Iterator[tuple[Sweep, Cell]]:
    """A cell with each of the settings that are tried: the sweep with one seed, and the cell for it."""
    assert sweep.tuning is not None
    for seed in sweep.seeds:
        for drawn in sweep.tuning.draws(seed):
            yield replace(sweep, seeds=(seed,)), Cell(cell.labels, cell.settings | drawn)


def _refuse_many(sweep: Sweep, what: str, sizes: Mapping[str, int]) -> None:
    """Raises UserError for a plan with too many runs."""
    count = prod(sizes.values())
    if count > MOST_RUNS:
        factors = " x ".join(f"{size:,} ({name})" for name, size in sizes.items())
        raise UserError(
            f"{factors} are {count:,} {what}, more than the {MOST_RUNS:,} of a plan; use fewer levels or "
            "seeds, design: one_factor, or a list of cells",
            file=sweep.path,
            key="factors",
        )
