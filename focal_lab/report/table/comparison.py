"""Comparisons of rows with their baselines: paired tests, corrected for their number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from focal_lab.report.table.records import Comparison, Row
from focal_lab.report.table.statistics import ALPHA, LEAST_SEEDS, Verdict, holm, p_value, sample
from focal_lab.report.table.test_sets import conflicting, tests_of
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import Column


def find_baselines(rows: Sequence[Row], baseline: Mapping[str, Mapping[str, str]]) -> list[int | None]:
    """For each row the index of the row that it is compared with.

    Args:
        rows: of the table.
        baseline: factor -> label -> the baseline's label; empty: the first row is the baseline of all.

    Returns:
        None for baselines, and for rows whose baseline is not in the table.
    """
    own = [index for index, row in enumerate(rows) if not row.reference]
    if not baseline:
        return [None if row.reference or index == own[0] else own[0] for index, row in enumerate(rows)]
    places = {tuple(rows[index].labels.items()): index for index in own}
    found = []
    for index, row in enumerate(rows):
        wanted = {name: baseline.get(name, {}).get(label, label) for name, label in row.labels.items()}
        place = None if row.reference else places.get(tuple(wanted.items()))
        found.append(None if place == index else place)
    return found


def compare_rows(
    rows: Sequence[Row], columns: Sequence[Column], results: Mapping[str, Result], *, across_data: bool
) -> list[Row]:
    """Compare every metric, but not parameters and times, of every row with the row's baseline.

    Args:
        rows: with `baseline` and `data`.
        columns: of the table.
        results: of the finished runs.
        across_data: also compare rows with baselines that have different data.
    """
    changed = [dict(row.entries) for row in rows]
    for column in columns:
        if column.task is None:
            continue
        compared = {
            index: _compare(row, row.baseline, rows[row.baseline], column, results, across_data)
            for index, row in enumerate(rows)
            if row.baseline is not None and row.entries[column.key].planned
        }
        for index, comparison in _corrected(compared, rows, column).items():
            changed[index][column.key] = replace(changed[index][column.key], compared=comparison)
    return [replace(row, entries=entries) for row, entries in zip(rows, changed, strict=True)]


def _compare(
    row: Row, place: int, baseline: Row, column: Column, results: Mapping[str, Result], across_data: bool
) -> Comparison:
    mine, theirs = row.entries[column.key], baseline.entries[column.key]
    verdict: Verdict | None = None
    if [run.run for run in row.runs] == [run.run for run in baseline.runs]:
        verdict = "same runs"
    elif row.data != baseline.data and not across_data:
        verdict = "other data"
    elif row.data == baseline.data and conflicting(tests_of((row, baseline), column.task or "", results)):
        verdict = "other test set"
    pairs = [] if verdict else [mine.values[s] - theirs.values[s] for s in mine.values if s in theirs.values]
    found = sample(pairs)
    published = None
    if mine.published is not None and theirs.published is not None:
        published = round(mine.published - theirs.published, 9)
    return Comparison(
        baseline=place,
        n=found.n,
        difference=found.mean,
        half_width=found.half_width,
        p=p_value(found),
        p_holm=None,
        published=published,
        verdict=verdict or "too few seeds",
    )


def _corrected(
    compared: Mapping[int, Comparison], rows: Sequence[Row], column: Column
) -> dict[int, Comparison]:
    """Holm's correction over the column; rows that share their runs are one comparison."""
    family = {
        index: comparison.p
        for index, comparison in compared.items()
        if comparison.p is not None and comparison.n >= LEAST_SEEDS and rows[index].same_as is None
    }
    corrected = dict(zip(family, holm(list(family.values())), strict=True))
    found = dict(compared)
    for index, comparison in compared.items():
        same_as = rows[index].same_as
        p_holm = corrected.get(index if same_as is None else same_as)
        if p_holm is not None and comparison.difference is not None:
            verdict: Verdict = "within noise"
            if p_holm < ALPHA:
                verdict = "better" if (comparison.difference > 0) == column.higher_is_better else "worse"
            found[index] = replace(comparison, p_holm=p_holm, verdict=verdict)
    return found
