"""The questions of a table: every row against its baseline."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from focal_lab.report.table.decide import Question, combined
from focal_lab.report.table.records import Row
from focal_lab.report.table.test_sets import TestSet, common_test, conflicting, tests_of
from focal_lab.report.table.variance_sources import seed_factors
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import Column
from focal_lab.sweep.spec.sweep_file import Sweep


def find_baselines(rows: Sequence[Row], baseline: Mapping[str, Mapping[str, str]]) -> list[int | None]:
    """For each row the index of the row that it is compared with.

    Args:
        rows: of the table.
        baseline: factor -> label -> the baseline's label; empty: the first row is the baseline of all.

    Returns:
        None for baselines, for rows whose baseline is not in the table, and for those that differ from it in
        the seed of a part of the run: its levels are a sample.
    """
    seeds = seed_factors(rows)
    return [
        None
        if place is None or any(row.labels[name] != rows[place].labels[name] for name in seeds)
        else place
        for row, place in zip(rows, _all_baselines(rows, baseline), strict=True)
    ]


def _all_baselines(rows: Sequence[Row], baseline: Mapping[str, Mapping[str, str]]) -> Sequence[int | None]:
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


def row_questions(
    rows: Sequence[Row], columns: Sequence[Column], results: Mapping[str, Result], sweep: Sweep
) -> Iterator[tuple[int, Question]]:
    """Every metric, but not parameters and times, of every row with a baseline: index of the row, question.

    Args:
        rows: with `baseline` and `data`. Rows with other data than their baseline are only compared if the
            sweep names a baseline.
    """

    @cache
    def test_of(index: int, task: str) -> TestSet | None:
        return common_test(tests_of((rows[index],), task, results))

    for index, row in enumerate(rows):
        if row.baseline is None:
            continue
        baseline = rows[row.baseline]
        for column in columns:
            if column.task is None or not row.entries[column.key].planned:
                continue
            tests = [test_of(place, column.task) for place in (index, row.baseline)]
            terms = combined([(1.0, index), (-1.0, row.baseline)], rows)
            excluded = None
            if row.data != baseline.data and not sweep.baseline:
                excluded = "other data"
            elif row.data == baseline.data and (None in tests or conflicting(test for test in tests if test)):
                excluded = "other test set"
            published = None
            mine, theirs = row.entries[column.key].comparable, baseline.entries[column.key].comparable
            if mine is not None and theirs is not None:
                published = round(mine - theirs, 9)
            margin = sweep.margin(column.key)
            yield (
                index,
                Question(column, terms, 0.0, "better", margin, excluded=excluded, published=published),
            )
