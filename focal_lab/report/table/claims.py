"""Does the claim hold? Each of its comparisons of cells, answered by the seeds that all of them have."""

from collections.abc import Mapping, Sequence
from math import fsum

from focal_lab.report.table.model import Answer, ClaimVerdict, Row
from focal_lab.report.table.statistics import ALPHA, probability_positive, sample
from focal_lab.report.table.test_sets import conflicting, tests_of
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.claim_grammar import Expectation
from focal_lab.sweep.spec.columns import COLUMNS


def answer_claims(
    rows: Sequence[Row], expectations: Sequence[Expectation], results: Mapping[str, Result] | None = None
) -> tuple[Answer, ...]:
    """What the rows say to each part of a claim, in the claim's order.

    Args:
        rows: of the table.
        expectations: the parts.
        results: of the finished runs; cells whose runs were tested on other images are not compared.
    """
    return tuple(_answer(rows, expectation, results or {}) for expectation in expectations)


def overall(
    answers: Sequence[Answer],
) -> tuple[ClaimVerdict, float | None]:
    """All parts together: supported if all are, contradicted if one is; at most this probable.

    Parts share cells and seeds, so their probabilities do not multiply; the whole is never more probable than
    its least probable part.
    """
    known = [answer.probability for answer in answers if answer.probability is not None]
    probability = min(known) if len(known) == len(answers) and known else None
    if any(answer.verdict == "contradicted" for answer in answers):
        return "contradicted", probability
    if answers and all(answer.verdict == "supported" for answer in answers):
        return "supported", probability
    return "undecided", probability


def _answer(rows: Sequence[Row], expectation: Expectation, results: Mapping[str, Result]) -> Answer:
    contrasts = [] if _apart(rows, expectation, results) else _contrasts(rows, expectation)
    found = sample(contrasts)
    probability = probability_positive(contrasts)
    if found.sd == 0 and found.mean == 0:  # equal, as far as these pictures can tell
        probability = 0.0 if expectation.strict else 1.0
    verdict: ClaimVerdict = "undecided"
    if probability is not None and probability >= 1 - ALPHA:
        verdict = "supported"
    elif probability is not None and probability < ALPHA:
        verdict = "contradicted"
    return Answer(
        text=expectation.text,
        metric=expectation.metric,
        n=found.n,
        difference=found.mean,
        half_width=found.half_width,
        probability=probability,
        verdict=verdict,
        published=_published(rows, expectation),
    )


def _apart(rows: Sequence[Row], expectation: Expectation, results: Mapping[str, Result]) -> bool:
    """Whether cells of the same data were tested on different images, labels or classes."""
    task = COLUMNS[expectation.metric].task if expectation.metric in COLUMNS else None
    cells = [row for _, labels in expectation.terms for row in _cells(rows, labels)]
    return task is not None and any(
        conflicting(tests_of([row for row in cells if row.data == data], task, results))
        for data in {row.data for row in cells}
    )


def _contrasts(rows: Sequence[Row], expectation: Expectation) -> list[float]:
    """The comparison's difference, seed by seed; none when a cell is missing."""
    weighted: list[tuple[float, Mapping[int, float]]] = []
    for weight, labels in expectation.terms:
        cells = _cells(rows, labels)
        if not cells:
            return []
        for row in cells:
            entry = row.entries.get(expectation.metric)
            if entry is None:
                return []
            weighted.append((weight / len(cells), entry.values))
    seeds = set.intersection(*(set(values) for _, values in weighted))
    return [
        fsum([expectation.constant, *(weight * values[seed] for weight, values in weighted)])
        for seed in sorted(seeds)
    ]


def _published(rows: Sequence[Row], expectation: Expectation) -> float | None:
    parts = [expectation.constant]
    for weight, labels in expectation.terms:
        cells = _cells(rows, labels)
        numbers = [
            row.entries[expectation.metric].published for row in cells if expectation.metric in row.entries
        ]
        known = [number for number in numbers if number is not None]
        if not known or len(known) < len(cells):
            return None
        parts.append(weight * fsum(known) / len(known))
    return round(fsum(parts), 9)


def _cells(rows: Sequence[Row], labels: Mapping[str, str]) -> list[Row]:
    return [row for row in rows if labels.items() <= row.labels.items()]
