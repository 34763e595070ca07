"""The questions of a sweep's claim, one for each part, and the verdict on the claim as a whole."""

from collections.abc import Mapping, Sequence
from math import fsum

from focal_lab.report.table.decide import INCONCLUSIVE, Question, combined
from focal_lab.report.table.records import Answer, Row
from focal_lab.report.table.test_sets import same_tests
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.claim_grammar import Expectation
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.sweep.spec.sweep_file import Sweep


def overall(answers: Sequence[Answer]) -> str:
    """Supported if all parts are (intersection-union), contradicted if one is, otherwise inconclusive.

    The parts' verdicts are corrected for all comparisons of the report, so the claim's are, too.
    """
    verdicts = {answer.verdict for answer in answers}
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if verdicts == {"supported"} else INCONCLUSIVE


def claim_question(
    rows: Sequence[Row], expectation: Expectation, results: Mapping[str, Result], sweep: Sweep
) -> Question:
    """A part of a claim, about the sweep's own rows.

    Cells whose runs were tested on different images are not compared.
    """
    cells = [
        (weight, [row for row in rows if not row.reference and labels.items() <= row.labels.items()])
        for weight, labels in expectation.terms
    ]
    column = COLUMNS[expectation.metric]
    places = {id(row): index for index, row in enumerate(rows)}
    complete = all(term and all(column.key in row.entries for row in term) for _, term in cells)
    terms = [(weight / len(term), places[id(row)]) for weight, term in cells for row in term]
    excluded = None
    if not complete:
        excluded = "too few seeds"
    elif not same_tests([row for _, term in cells for row in term], column.task or "", results):
        excluded = "other test set"
    margin = sweep.margin(column.key) if expectation.margin is None else expectation.margin
    return Question(
        column,
        combined(terms, rows),
        expectation.constant,
        expectation.relation,
        margin,
        tolerance=expectation.margin or 0.0 if expectation.relation == "at least" else 0.0,
        excluded=excluded,
        published=_published(cells, expectation),
    )


_Cells = Sequence[tuple[float, Sequence[Row]]]


def _published(cells: _Cells, expectation: Expectation) -> float | None:
    parts = [expectation.constant]
    for weight, term in cells:
        entries = [row.entries.get(expectation.metric) for row in term]
        known = [entry.comparable for entry in entries if entry and entry.comparable is not None]
        if not known or len(known) < len(term):
            return None
        parts.append(weight * fsum(known) / len(known))
    return round(fsum(parts), 9)
