"""A sweep's table: the plan's cells as rows, measured numbers with their spread beside the published ones."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.published.layouts import Layout, Published, find_layout, published_values
from focal_lab.report.table.claims import answer_claims
from focal_lab.report.table.comparison import compare_rows, find_baselines
from focal_lab.report.table.left_out import left_out
from focal_lab.report.table.model import COUNTED, Entry, PlannedRun, Row, Status, Table
from focal_lab.report.table.notes import table_notes
from focal_lab.report.table.provenance import describe_data, provenance_of
from focal_lab.report.table.reference_rows import with_references
from focal_lab.report.table.statistics import sample
from focal_lab.report.table.test_sets import mixed_tests, untold
from focal_lab.sweep.plan.pareto import front_sentence
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import Column, find_column

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run


def build_table(plan: "Plan", out: Path, command: str | None = None) -> Table:
    """The table of a plan from what lies in `out`; nothing there is written.

    Args:
        command: trains what is missing; None for the plan's own, which knows only what makes the plan.

    Raises:
        UserError: the sweep names a published table or a column that does not exist.
    """
    sweep = plan.sweep
    layout, columns = _layout_and_columns(plan)
    costs_task = _costs_task(layout, sweep.tasks)
    outcomes = {run.id: read_outcome(out / run.id) for run in plan.runs}
    runs_of: dict[tuple[str, ...], list[PlannedRun]] = defaultdict(list)
    for run in plan.runs:
        runs_of[tuple(run.cell.labels.values())].append(_planned_run(run, outcomes[run.id]))
    results = {name: outcome.result for name, outcome in outcomes.items() if outcome.result}
    first_row: dict[frozenset[str], int] = {}
    rows = []
    for index, cell in enumerate(plan.cells):
        runs = runs_of[tuple(cell.labels.values())]
        first = first_row.setdefault(frozenset(run.run for run in runs), index)
        same_as = first if runs and first != index else None
        paper = published_values(layout, cell.labels) if layout else None
        numbers = [_entry(column, costs_task, runs, results, paper, layout) for column in columns]
        states = Counter(run.state for run in runs)
        rows.append(
            Row(
                labels=dict(cell.labels),
                entries=dict(zip(sweep.columns, numbers, strict=True)),
                states={str(state): states[state] for state in State},
                runs=tuple(runs),
                in_paper=paper is not None,
                same_as=same_as,
            )
        )
    if layout is not None and layout.others:
        rows = with_references(rows, layout, sweep.columns)
    compared = _compared(plan, rows, columns, results)
    table = Table(
        name=sweep.name,
        title=sweep.title,
        claim=sweep.claim,
        suite=plan.suite,
        command=command or plan.command(out),
        cite=layout.cite if layout else None,
        setting=layout.setting if layout else None,
        tasks=tuple(sweep.tasks),
        costs_task=costs_task,
        seeds=tuple(dict.fromkeys(run.seed for run in plan.runs)),
        factors=tuple(dict.fromkeys(factor for cell in plan.cells for factor in cell.labels)),
        columns=columns,
        rows=tuple(compared),
        notes=(),
        provenance=replace(
            provenance_of(list(results.values())),
            mixed_tests=tuple(_mixed_tests(compared, list(results.values()))),
            untold_tests=untold(list(results.values())),
        ),
        order=_order(plan, len(results)),
        answers=answer_claims(compared, sweep.expectations, results),
    )
    return replace(table, notes=(*table_notes(table), *left_out(plan, out)))


def _mixed_tests(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """What was not tested on what the other rows of the same data were."""
    places = {run.run: (row, run) for row in reversed(rows) for run in row.runs}
    names = {
        name: f"{' / '.join(row.labels.values())}, seed {run.seed} ({name})"
        for name, (row, run) in places.items()
    }
    return mixed_tests(results, {name: row.data for name, (row, _) in places.items()}, names)


def _compared(
    plan: "Plan", rows: Sequence[Row], columns: Sequence[Column], results: Mapping[str, Result]
) -> list[Row]:
    """The rows with their baselines; a search has none unless its file names one."""
    found = [[results[run.run] for run in row.runs if run.run in results] for row in rows]
    baselines: list[int | None] = [None] * len(rows)
    if plan.recipe is None or plan.sweep.baseline:
        baselines = find_baselines(rows, plan.sweep.baseline)
    described = zip(rows, baselines, describe_data(found), strict=True)
    rows = [replace(row, baseline=baseline, data=data) for row, baseline, data in described]
    return compare_rows(rows, columns, across_data=bool(plan.sweep.baseline), results=results)


def _order(plan: "Plan", trained: int) -> str | None:
    if plan.recipe is None:
        return None
    return front_sentence(plan.front, plan.recipe.search.objectives, trained)


def _layout_and_columns(plan: "Plan") -> tuple[Layout | None, tuple[Column, ...]]:
    sweep = plan.sweep
    key = "paper"
    try:
        layout = None if sweep.paper is None else find_layout(sweep.paper)
        key = "columns"
        return layout, tuple(find_column(name) for name in sweep.columns)
    except UserError as error:
        raise UserError(error.message, file=sweep.path, key=key) from None


def _costs_task(layout: Layout | None, tasks: Sequence[str]) -> str:
    """The task whose networks the published table counts; the sweep's first one where it lacks that."""
    if layout is not None and layout.counted_task in tasks:
        return layout.counted_task
    return tasks[0]


def _planned_run(run: "Run", outcome: Outcome) -> PlannedRun:
    return PlannedRun(run.id, run.task, run.seed, outcome.state, outcome.reason, outcome.last_line)


def _entry(
    column: Column,
    costs_task: str,
    runs: Sequence[PlannedRun],
    results: Mapping[str, Result],
    paper: Published | None,
    layout: Layout | None,
) -> Entry:
    """What every run has (parameters, times) is taken from the runs of one task."""
    task = column.task or costs_task
    runs = [run for run in runs if run.task == task]
    found = {run.seed: _value(results[run.run], column) for run in runs if run.run in results}
    values = {seed: value for seed, value in found.items() if value is not None}
    counted = column.key in COUNTED
    # of what is counted only the mean is wanted
    found_in = sample(list(values.values())[: 1 if counted else None])
    return Entry(
        mean=found_in.mean,
        sd=found_in.sd,
        half_width=found_in.half_width,
        n=len(values),
        planned=len(runs),
        published=_published(column, task, paper, layout),
        status=_status([run.state for run in runs], measured=bool(values)),
        values=values,
    )


def _published(column: Column, task: str, paper: Published | None, layout: Layout | None) -> float | None:
    """The paper counts one task's networks in a table; beside another's its counts mean nothing."""
    if paper is None or layout is None or (column.key in COUNTED and task != layout.counted_task):
        return None
    return paper.values.get(column.key)


def _value(result: Result, column: Column) -> float | None:
    value = result.metrics.get(column.key) if column.task else getattr(result, column.key)
    # Scaling must not add digits: 28288354 parameters are 28.288354 M, not 28.288353999999998 M.
    return value if value is None or column.scale == 1 else round(value * column.scale, 9)


def _status(states: Sequence[State], *, measured: bool) -> Status:
    if measured:
        return "measured"
    if not states:
        return "not planned"
    if State.FAILED in states:
        return "failed"
    if State.PRUNED in states:
        return "pruned"
    if State.CORRUPT in states:
        return "corrupt"
    return "missing" if State.MISSING in states else "not reported"
