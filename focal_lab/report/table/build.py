"""Builds a sweep's table: the plan's cells as rows, measured numbers beside the published ones."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.errors import UserError
from focal_lab.report.frozen import frozen_notes
from focal_lab.report.published.layouts import (
    PublishedCell,
    PublishedTable,
    find_layout,
    published_rows,
    published_values,
)
from focal_lab.report.statistics.crossed import over_seeds
from focal_lab.report.table.claims import claim_question
from focal_lab.report.table.comparison import find_baselines, row_questions
from focal_lab.report.table.decide import decide, tests
from focal_lab.report.table.factor_effects import factor_effects
from focal_lab.report.table.left_out import left_out
from focal_lab.report.table.like_paper import beside_paper
from focal_lab.report.table.notes import table_notes
from focal_lab.report.table.origins import describe_data, provenance_of
from focal_lab.report.table.records import COUNTED, Answer, Comparison, Entry, PlannedRun, Row, Status, Table
from focal_lab.report.table.test_sets import mixed_tests
from focal_lab.report.table.test_units import TestUnits
from focal_lab.report.table.tuned import counting_runs, tuned_notes
from focal_lab.report.table.variance_sources import variance_sources
from focal_lab.sweep.plan.pareto import front_sentence
from focal_lab.sweep.plan.plan import confounds_of
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import COLUMNS, Column

if TYPE_CHECKING:
    import pandas as pd

    from focal_lab.sweep.plan.plan import Plan


def sweep_table(
    sweep: str | Path,
    out: str | Path = "runs",
    *,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
) -> "pd.DataFrame":
    """A sweep's table as a DataFrame: labels as index, (column, statistic) as columns; see `Table.frame`.

    Args:
        sweep: sweep file, or its name in `sweeps/`.
        out: the folder of the runs.
        suite, tasks, seeds, overrides: as `--suite`, `--tasks`, `--seeds` and `--set` of `focal-lab report`;
            by default as the sweep was last run in `out`.

    Raises:
        UserError: there is no such sweep, or it is invalid.
    """
    plan = recall_sweep(sweep, out, suite=suite, tasks=tasks, seeds=seeds, overrides=overrides)
    return build_table(plan, Path(out)).frame


def recall_sweep(sweep: str | Path, out: str | Path, **options: Any) -> "Plan":
    """The plan of a sweep as it was last run in `out`, but for the options given; a search's has its runs."""
    from focal_lab.sweep.plan.plan import with_proposals
    from focal_lab.sweep.plan.recall import recall_plan
    from focal_lab.sweep.spec.sweep_file import find_sweep

    return with_proposals(recall_plan(find_sweep(str(sweep)), Path(out), **options), Path(out))


def build_table(plan: "Plan", out: Path, command: str | None = None) -> Table:
    """The table of a plan, from the runs in `out`.

    `command` trains what is missing; by default the plan's own, which has only the options that select runs.

    Raises:
        UserError: the sweep names a published table that does not exist.
    """
    sweep = plan.sweep
    try:
        layout = None if sweep.paper is None else find_layout(sweep.paper)
    except UserError as error:
        raise UserError(error.message, file=sweep.path, key="paper") from None
    columns = tuple(COLUMNS[name] for name in sweep.columns)
    # the task whose networks the published table counts; the sweep's first one if it does not run that
    costs_task = layout.counted_task if layout and layout.counted_task in sweep.tasks else sweep.tasks[0]
    runs_of: dict[tuple[str, ...], list[PlannedRun]] = defaultdict(list)
    outcomes = {run.id: read_outcome(out / run.id) for run in plan.runs}
    results = {name: found.result for name, found in outcomes.items() if found.result is not None}
    failed = {name for name, found in outcomes.items() if found.state is State.FAILED}
    counting = counting_runs(plan, results, failed)
    for run in plan.runs:
        found, counts = outcomes[run.id], counting is None or run.id in counting
        planned = PlannedRun(run.id, run.task, run.seed, found.state, found.reason, found.last_line, counts)
        runs_of[tuple(run.cell.labels.values())].append(planned)
    first_row: dict[frozenset[str], int] = {}
    rows = []
    for index, cell in enumerate(plan.cells):
        runs = runs_of[tuple(cell.labels.values())]
        first = first_row.setdefault(frozenset(run.run for run in runs), index)
        paper = published_values(layout, cell.labels) if layout else None
        numbers = [
            _entry(column, costs_task, runs, results, paper, layout, sweep.success) for column in columns
        ]
        states = Counter(run.state for run in runs)
        rows.append(
            Row(
                labels=dict(cell.labels),
                entries=dict(zip(sweep.columns, numbers, strict=True)),
                states={str(state): states[state] for state in State},
                runs=tuple(runs),
                in_paper=paper is not None,
                same_as=first if runs and first != index else None,
            )
        )
    rows = beside_paper(rows, plan, columns, layout, costs_task, results)
    if layout is not None and layout.others:
        rows = _with_references(rows, layout, sweep.columns)
    rows = _with_baselines(plan, rows, results)
    units = TestUnits(rows, results, out)
    rows, answers, comparisons, asked = _decided(
        plan, _with_images(rows, columns, units), columns, results, units
    )
    sources, source_notes = variance_sources(rows, columns, units)
    order = None
    if plan.space is not None:
        order = front_sentence(plan.front, plan.space.search.objectives, len(results))
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
        rows=tuple(rows),
        notes=(),
        provenance=provenance_of(list(results.values()), mixed_tests(rows, results)),
        order=order,
        answers=answers,
        comparisons=comparisons,
        confounds=confounds_of(plan),
        effects=factor_effects(rows, columns, results, sweep, units) if plan.space is None else (),
        sources=sources,
        max_seeds=plan.max_seeds,
        looked_at=plan.looked_at,
        asked=asked,
        success=sweep.success,
    )
    notes = (
        *table_notes(table, units),
        *source_notes,
        *tuned_notes(plan, results, failed, rows),
        *frozen_notes(plan),
    )
    return replace(table, notes=(*notes, *left_out(plan, out)))


def _with_references(rows: Sequence[Row], layout: PublishedTable, keys: Sequence[str]) -> list[Row]:
    """The rows and, in the paper's order, those of the published table that they lack.

    Rows that the paper does not have come last. If the sweep varies other factors than the published table,
    it has its own rows only.
    """
    if not rows or rows[0].labels.keys() != layout.factors.keys():
        return list(rows)
    placed = []
    for index, row in enumerate(rows):
        found = published_values(layout, row.labels)
        placed.append((found.place if found else (len(rows) + 10**6, index), row))
    taken = {place for place, _ in placed}
    for labels, found in published_rows(layout):
        values = {key: found.values[key] for key in keys if key in found.values}
        if found.place not in taken and values:
            entries = {key: Entry(None, None, None, 0, 0, values.get(key), "not planned", {}) for key in keys}
            states = {str(state): 0 for state in State}
            placed.append((found.place, Row(labels, entries, states, (), True, None, reference=True)))
    placed.sort(key=lambda pair: pair[0])
    places = {id(row): index for index, (_, row) in enumerate(placed)}
    return [
        row if row.same_as is None else replace(row, same_as=places[id(rows[row.same_as])])
        for _, row in placed
    ]


def _with_baselines(plan: "Plan", rows: Sequence[Row], results: Mapping[str, Result]) -> list[Row]:
    """The rows with their baselines; a search has none unless its file names one."""
    baselines: list[int | None] = [None] * len(rows)
    if plan.space is None or plan.sweep.baseline:
        baselines = find_baselines(rows, plan.sweep.baseline)
    data = describe_data([[results[run.run] for run in row.runs if run.run in results] for row in rows])
    return [
        replace(row, baseline=baseline, data=words)
        for row, baseline, words in zip(rows, baselines, data, strict=True)
    ]


def _with_images(rows: Sequence[Row], columns: Sequence[Column], units: TestUnits) -> list[Row]:
    """The rows with intervals over seeds and test images."""
    changed = []
    for index, row in enumerate(rows):
        entries = dict(row.entries)
        for column in columns:
            entry = entries[column.key]
            if column.task is not None and entry.sd is not None:
                found = units.estimate([(1.0, index)], column)
                entries[column.key] = replace(entry, half_width=found.half_width, images=found.units)
        changed.append(replace(row, entries=entries))
    return changed


def _decided(
    plan: "Plan",
    rows: Sequence[Row],
    columns: Sequence[Column],
    results: Mapping[str, Result],
    units: TestUnits,
) -> tuple[list[Row], tuple[Answer, ...], int, int]:
    """Rows with their comparisons, the parts of the claim, and the number of tests, now and in the end."""
    sweep = plan.sweep
    asked = list(row_questions(rows, columns, results, sweep))
    parts = [claim_question(rows, part, results, sweep) for part in sweep.expectations]
    questions = [*(question for _, question in asked), *parts]
    outcomes = decide(questions, units, plan.max_seeds)
    entries = [dict(row.entries) for row in rows]
    for (index, question), outcome in zip(asked, outcomes, strict=False):
        key, baseline = question.column.key, rows[index].baseline
        assert baseline is not None
        compared = Comparison(**vars(outcome), baseline=baseline)
        entries[index][key] = replace(entries[index][key], compared=compared)
    answers = tuple(
        Answer(**vars(outcome), text=part.text, metric=part.metric)
        for part, outcome in zip(sweep.expectations, outcomes[len(asked) :], strict=True)
    )
    decided = [replace(row, entries=found) for row, found in zip(rows, entries, strict=True)]
    in_the_end = [question for question in questions if question.terms and not question.excluded]
    asked_in_all = len({question.difference_key for question in in_the_end})
    return decided, answers, tests(outcomes, questions), asked_in_all


def _entry(
    column: Column,
    costs_task: str,
    runs: Sequence[PlannedRun],
    results: Mapping[str, Result],
    paper: PublishedCell | None,
    layout: PublishedTable | None,
    success: Mapping[str, float],
) -> Entry:
    """One number; what every run has (parameters, times) is taken from the runs of one task."""
    task = column.task or costs_task
    runs = [run for run in runs if run.task == task]
    counting = [run for run in runs if run.counts and run.run in results]
    found = {run.seed: _value(results[run.run], column) for run in counting}
    values = {seed: value for seed, value in found.items() if value is not None}
    counted = column.key in COUNTED
    # what is counted has no spread
    estimate = over_seeds(list(values.values())[: 1 if counted else None])
    published = paper.values.get(column.key) if paper is not None else None
    if counted and layout is not None and task != layout.counted_task:
        published = None  # a published count is of another task's networks
    return Entry(
        mean=estimate.mean,
        sd=estimate.sd,
        half_width=estimate.half_width,
        n=len(values),
        planned=len({run.seed for run in runs}),
        published=published,
        status="measured" if values else _status({str(run.state) for run in runs}),
        values=values,
        successes=_successes(values.values(), column, success.get(column.key)),
    )


def _successes(values: Iterable[float], column: Column, threshold: float | None) -> int | None:
    if threshold is None:
        return None
    sign = 1 if column.higher_is_better else -1
    return sum(sign * value >= sign * threshold for value in values)


def _value(result: Result, column: Column) -> float | None:
    value = result.metrics.get(column.key) if column.task else getattr(result, column.key)
    # Scaling must not add digits: 28288354 parameters are 28.288354 M, not 28.288353999999998 M.
    return value if value is None or column.scale == 1 else round(value * column.scale, 9)


def _status(states: set[str]) -> Status:
    """The most severe state of runs without a value."""
    severe: tuple[Status, ...] = ("failed", "pruned", "corrupt", "missing")
    return next((state for state in severe if state in states), "not reported" if states else "not planned")
