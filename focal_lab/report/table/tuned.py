"""The runs of a tuned sweep that count: of each cell and seed the one with the best validation metric."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from focal_lab.report.table.records import Row, shown_name
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.utils.units import many

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

# Cells whose choices a note lists.
_MOST_NAMED = 6
_Tried = dict[tuple[tuple[str, ...], int], list["Run"]]


def counting_runs(
    plan: "Plan", results: Mapping[str, Result], failed: Collection[str]
) -> frozenset[str] | None:
    """IDs of the runs that count; None if the sweep tunes nothing, so that all do.

    A cell has no value for a seed until all of its settings were tried: budgets are equal. A setting that
    failed, as by a NaN loss, was tried and is not chosen.
    """
    if plan.sweep.tuning is None:
        return None
    return frozenset(run.id for run in _best(plan, results, failed).values())


def tuned_notes(
    plan: "Plan", results: Mapping[str, Result], failed: Collection[str], rows: Iterable[Row]
) -> Iterator[str]:
    """How cells were tuned, and which settings were chosen; `rows` have the names by which they are shown."""
    tuning = plan.sweep.tuning
    if tuning is None:
        return
    metric = COLUMNS[MAIN[plan.sweep.tasks[0]]].title.partition(" (")[0]
    yield (
        f"Tuned: each cell and seed tries {tuning.trials} settings, the same in all cells, and the one with "
        f"the best validation {metric} counts; the intervals include this choice."
    )
    best, tried = _best(plan, results, failed), _tried(plan)
    open_ones = len(tried) - len(best)
    if open_ones:
        yield (
            f"{open_ones} of {len(tried)} cells and seeds have no value yet: not all of their settings have "
            f"finished with a validation {metric}."
        )
    lost = len({run.id for run in plan.runs if run.id in failed})
    if lost:
        yield f"{many(lost, 'run')} of a setting failed: it counts as tried and is not chosen."
    names = {tuple(row.labels.values()): shown_name(row) for row in rows}
    chosen: dict[str, list[str]] = defaultdict(list)
    for (labels, _), run in best.items():
        settings = ", ".join(f"{name} {run.cell.settings[name]}" for name in tuning.ranges)
        chosen[names[labels]].append(settings)
    for cell, settings_of_seeds in list(chosen.items())[:_MOST_NAMED]:
        yield f"Chosen for {cell}, seed by seed: {'; '.join(settings_of_seeds)}."


def _tried(plan: "Plan") -> _Tried:
    found: _Tried = defaultdict(list)
    for run in plan.runs:
        found[tuple(run.cell.labels.values()), run.seed].append(run)
    return found


def _best(
    plan: "Plan", results: Mapping[str, Result], failed: Collection[str]
) -> dict[tuple[tuple[str, ...], int], "Run"]:
    """The chosen run of each cell and seed that has tried all settings; the first one of equal ones."""
    metric = MAIN[plan.sweep.tasks[0]]
    found = {}
    for key, tried in _tried(plan).items():
        runs = [run for run in tried if run.id not in failed]
        if runs and all(run.id in results and metric in results[run.id].validation for run in runs):
            found[key] = max(runs, key=lambda run: results[run.id].validation[metric])
    return found
