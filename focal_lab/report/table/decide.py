"""Decides all comparisons of a report together: one estimate, one correction, one set of words.

A report makes two kinds of statements: that cells differ (better, worse, supported, contradicted) and that
they are equivalent within a margin. Each kind is corrected by Holm's method for all comparisons of the
report: at most 5 % of reports have a false statement of that kind.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from focal_lab.report.statistics.correction import holm
from focal_lab.report.statistics.crossed import ALPHA, Estimate, beyond, equivalence, two_sided
from focal_lab.report.statistics.power import Spread, detectable, exaggeration, seeds_needed
from focal_lab.report.table.records import Outcome, Row
from focal_lab.report.table.test_units import Terms, TestUnits
from focal_lab.sweep.spec.claim_grammar import Relation
from focal_lab.sweep.spec.columns import Column

# With two differences the 95 % interval is 12.7 standard errors wide on either side: too wide for a verdict.
LEAST_SEEDS = 3
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Question:
    """What is asked of a contrast, the weighted sum of rows plus a constant.

    Attributes:
        terms: weight and index of rows, as `combined` gives them.
        constant: in the metric's unit.
        asked: "better" of a table's row, or the relation of a claim.
        margin: the largest contrast that counts as none.
        tolerance: by how much a contrast that is asked to be at least 0 may be below.
        excluded: why it is not tested; None if it is.
        published: the same contrast of the published numbers.
    """

    column: Column
    terms: Terms
    constant: float
    asked: Relation | Literal["better"]
    margin: float
    tolerance: float = 0.0
    excluded: str | None = None
    published: float | None = None

    def key(self, constant: float, margin: float = 0.0) -> Hashable:
        """Equal if the same is asked of the same contrast, whichever way round and in whatever multiple."""
        scale = self.terms[0][0] if self.terms else 1.0
        terms = tuple((round(weight / scale, 9), index) for weight, index in self.terms)
        return (self.column.key, terms, round(constant / scale, 9), round(margin / abs(scale), 9))

    @property
    def difference_key(self) -> Hashable:
        """What the test of a difference is about; that of `~` is about differences beyond the margin."""
        if self.asked == "same":
            return self.key(self.constant, self.margin)
        return self.key(self.constant + self.tolerance)

    @property
    def equivalence_key(self) -> Hashable:
        """What the test of equivalence is about."""
        return self.key(self.constant, self.margin)


def combined(terms: Terms, rows: Sequence[Row]) -> Terms:
    """Terms in the table's order; rows with the same runs are one, and those that cancel out are left out."""
    weights: dict[int, float] = {}
    for weight, index in terms:
        first = rows[index].same_as
        place = index if first is None else first
        weights[place] = weights.get(place, 0.0) + weight
    return [(weight, index) for index, weight in sorted(weights.items()) if abs(weight) > 1e-9]


def decide(questions: Sequence[Question], units: TestUnits) -> list[Outcome]:
    """The outcomes of all questions of a report."""
    estimates = [
        Estimate(0, None)
        if question.excluded or not question.terms
        else units.estimate(question.terms, question.column, question.constant)
        for question in questions
    ]
    p_values = [_p_value(question, found) for question, found in zip(questions, estimates, strict=True)]
    differ: dict[Hashable, float] = {}
    alike: dict[Hashable, float] = {}
    for question, estimate, p in zip(questions, estimates, p_values, strict=True):
        if estimate.n >= LEAST_SEEDS and p is not None:
            differ[question.difference_key] = p
            if question.asked in ("better", "same"):
                alike[question.equivalence_key] = equivalence(estimate, question.margin)
    level = ALPHA / max(1, len(differ))
    differ, alike = holm(differ), holm(alike)
    return [
        _outcome(question, estimate, p, differ, alike, level)
        for question, estimate, p in zip(questions, estimates, p_values, strict=True)
    ]


def tests(outcomes: Sequence[Outcome], questions: Sequence[Question]) -> int:
    """How many different tests of a difference there are."""
    pairs = zip(outcomes, questions, strict=True)
    return len({question.difference_key for outcome, question in pairs if outcome.p_holm is not None})


def _p_value(question: Question, estimate: Estimate) -> float | None:
    """Of no difference, or for `~` of none beyond the margin; None without spread between seeds."""
    if not estimate.sd:
        return None
    if question.asked == "same":
        return beyond(estimate, question.margin)
    return two_sided(estimate, -question.tolerance)


def _outcome(
    question: Question,
    estimate: Estimate,
    p: float | None,
    differ: Mapping[Hashable, float],
    alike: Mapping[Hashable, float],
    level: float,
) -> Outcome:
    verdict = question.excluded or _untested(question, estimate)
    p_holm = p_equivalent = detects = exaggerates = None
    seeds = None
    if verdict is None:
        p_holm, p_equivalent = differ[question.difference_key], alike.get(question.equivalence_key)
        verdict = _verdict(question, estimate, p_holm, p_equivalent)
        spread = Spread.of(estimate)
        if verdict == INCONCLUSIVE:
            detects = detectable(spread, estimate.n, level)
            seeds = seeds_needed(question.margin, spread, level)
        if p_holm < ALPHA:
            exaggerates = exaggeration(question.margin, spread, estimate.n, level)
    return Outcome(
        n=estimate.n,
        difference=estimate.mean,
        half_width=estimate.half_width,
        images=estimate.units,
        p=p,
        p_holm=p_holm,
        p_equivalent=p_equivalent,
        margin=question.margin,
        detectable=detects,
        seeds_needed=seeds,
        exaggeration=exaggerates,
        published=question.published,
        verdict=verdict,
    )


def _untested(question: Question, estimate: Estimate) -> str | None:
    """Why a question is not tested; None if it is."""
    if not question.terms:
        return "same runs"
    if estimate.n < LEAST_SEEDS:
        return "too few seeds"
    return "no spread" if estimate.without_spread else None


def _verdict(question: Question, estimate: Estimate, p_holm: float, p_equivalent: float | None) -> str:
    differs, equivalent = p_holm < ALPHA, p_equivalent is not None and p_equivalent < ALPHA
    above = estimate.mean is not None and estimate.mean > -question.tolerance
    if question.asked == "same":
        return "supported" if equivalent else "contradicted" if differs else INCONCLUSIVE
    if question.asked != "better":
        return INCONCLUSIVE if not differs else "supported" if above else "contradicted"
    if differs:
        return "better" if above == question.column.higher_is_better else "worse"
    return f"equivalent within {question.margin:g}" if equivalent else INCONCLUSIVE
