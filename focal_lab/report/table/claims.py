"""Whether a sweep's claim holds: each part is tested on the seeds that all of its cells have."""

from collections.abc import Mapping, Sequence
from math import fsum

from focal_lab.report.table.records import Answer, ClaimVerdict, Row
from focal_lab.report.table.statistics import ALPHA, probability_positive, sample
from focal_lab.report.table.test_sets import conflicting, tests_of
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.claim_grammar import Expectation
from focal_lab.sweep.spec.columns import COLUMNS


def overall(answers: Sequence[Answer]) -> tuple[ClaimVerdict, float | None]:
    """The claim as a whole: supported if all parts are, contradicted if one is.

    Parts share cells and seeds, so their probabilities do not multiply. The probability returned is that of
    the least probable part, which bounds the whole from above; None if one of them is unknown.
    """
    known = [answer.probability for answer in answers if answer.probability is not None]
    probability = min(known) if len(known) == len(answers) and known else None
    verdicts = {answer.verdict for answer in answers}
    if "contradicted" in verdicts:
        return "contradicted", probability
    return "supported" if verdicts == {"supported"} else "undecided", probability


def claim_answer(rows: Sequence[Row], expectation: Expectation, results: Mapping[str, Result]) -> Answer:
    """Test one part of a claim; cells whose runs were tested on different images are not compared."""
    cells = [
        (weight, [row for row in rows if labels.items() <= row.labels.items()])
        for weight, labels in expectation.terms
    ]
    contrasts = _contrasts(cells, expectation) if _comparable(cells, expectation.metric, results) else []
    found = sample(contrasts)
    probability = probability_positive(found)
    if found.sd == 0 and found.mean == 0:  # equal, as far as the test images can show
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
        published=_published(cells, expectation),
    )


_Cells = Sequence[tuple[float, Sequence[Row]]]


def _comparable(cells: _Cells, metric: str, results: Mapping[str, Result]) -> bool:
    """Whether cells of the same data were tested on the same images, labels and classes."""
    task = COLUMNS[metric].task if metric in COLUMNS else None
    rows = [row for _, term in cells for row in term]
    return task is None or not any(
        conflicting(tests_of([row for row in rows if row.data == data], task, results))
        for data in {row.data for row in rows}
    )


def _contrasts(cells: _Cells, expectation: Expectation) -> list[float]:
    """The comparison's difference for each seed; empty if a cell is missing."""
    if not all(term and all(expectation.metric in row.entries for row in term) for _, term in cells):
        return []
    weighted = [
        (weight / len(term), row.entries[expectation.metric].values) for weight, term in cells for row in term
    ]
    seeds = set.intersection(*(set(values) for _, values in weighted))
    return [
        fsum([expectation.constant, *(weight * values[seed] for weight, values in weighted)])
        for seed in sorted(seeds)
    ]


def _published(cells: _Cells, expectation: Expectation) -> float | None:
    parts = [expectation.constant]
    for weight, term in cells:
        entries = [row.entries.get(expectation.metric) for row in term]
        known = [entry.published for entry in entries if entry and entry.published is not None]
        if not known or len(known) < len(term):
            return None
        parts.append(weight * fsum(known) / len(known))
    return round(fsum(parts), 9)
