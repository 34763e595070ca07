"""Decides all comparisons of a report together: one estimate, one correction, one set of words.

A report makes two kinds of statements: that cells differ (better, worse, supported, contradicted) and that
they are equivalent within a margin. Each kind is corrected by Holm's method for all comparisons of the
report: at most 5 % of reports have a false statement of that kind.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import isnan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.statistics import many, sequential
from focal_lab.report.statistics.correction import holm
from focal_lab.report.statistics.crossed import ALPHA, Estimate
from focal_lab.report.table.records import Outcome, Row
from focal_lab.report.table.test_units import Terms, TestUnits
from focal_lab.sweep.spec.claim_grammar import Relation
from focal_lab.sweep.spec.columns import Column

# With two differences the 95 % interval is 12.7 standard errors wide on either side: too wide for a verdict.
LEAST_SEEDS = 3
INCONCLUSIVE, TOO_FEW = "inconclusive", "too few seeds"


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

    @cached_property
    def difference_key(self) -> Hashable:
        """What the test of a difference is about; that of `~` is about differences beyond the margin."""
        if self.asked == "same":
            return self.key(self.constant, self.margin)
        return self.key(self.constant + self.tolerance)

    @cached_property
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


def decide(questions: Sequence[Question], units: TestUnits, max_seeds: int | None = None) -> list[Outcome]:
    """The outcomes of all questions of a report.

    Args:
        max_seeds: the largest number of seeds of a sequential analysis, which looks at its comparisons after
            every seed; None if the number of seeds was fixed beforehand.
    """
    looks = [_looks(question, units, max_seeds) for question in questions]
    differing, equivalent = _p_values(questions, looks)
    differ: dict[Hashable, float] = {}
    alike: dict[Hashable, float] = {}
    for question, estimates, p_differ, p_alike in zip(questions, looks, differing, equivalent, strict=True):
        if estimates[-1].n >= LEAST_SEEDS and estimates[-1].sd:
            differ[question.difference_key] = _of_all_looks(
                p_differ, estimates, max_seeds, sequential.two_sided
            )
            if question.asked in ("better", "same"):
                alike[question.equivalence_key] = _of_all_looks(
                    p_alike, estimates, max_seeds, sequential.one_sided
                )
    corrected = Corrected(holm(differ), holm(alike))
    tested = [
        _tested(question, estimates, p_values, corrected, max_seeds)
        for question, estimates, p_values in zip(questions, looks, differing, strict=True)
    ]
    powers = _powers(questions, [estimates[-1] for estimates in looks], tested, corrected.level)
    return [
        _outcome(*parts, corrected, max_seeds)
        for parts in zip(
            *(questions, [estimates[-1] for estimates in looks], differing, tested, powers), strict=True
        )
    ]


@dataclass(frozen=True)
class Corrected:
    """P-values of a report, corrected for their number: of differences, and of equivalence."""

    differ: Mapping[Hashable, float]
    alike: Mapping[Hashable, float]

    @property
    def level(self) -> float:
        """At which a single difference is tested."""
        return ALPHA / max(1, len(self.differ))

    def next_level(self, p_values: Mapping[Hashable, float]) -> float:
        """At which the next one is tested by Holm's method, as some are significant."""
        return ALPHA / max(1, sum(p >= ALPHA for p in p_values.values()))


def _looks(question: Question, units: TestUnits, max_seeds: int | None) -> list[Estimate]:
    """The estimates that are looked at, the last one with all seeds."""
    if question.excluded or not question.terms:
        return [Estimate(0, None)]
    whole = units.estimate(question.terms, question.column, question.constant, max_seeds)
    if max_seeds is None:
        return [whole]
    earlier = range(sequential.FIRST_LOOK, whole.n)
    return [*(units.estimate(question.terms, question.column, question.constant, n) for n in earlier), whole]


def _of_all_looks(
    p_values: Sequence[float],
    estimates: Sequence[Estimate],
    max_seeds: int | None,
    of_looks: Callable[[Sequence[float], Sequence[Estimate], int], float],
) -> float:
    """The p-value of a sequential analysis, or that of the only look."""
    return p_values[-1] if max_seeds is None else of_looks(p_values, estimates, max_seeds)


def tests(outcomes: Sequence[Outcome], questions: Sequence[Question]) -> int:
    """How many different tests of a difference there are."""
    pairs = zip(outcomes, questions, strict=True)
    return len({question.difference_key for outcome, question in pairs if outcome.p_holm is not None})


def _p_values(
    questions: Sequence[Question], looks: Sequence[Sequence[Estimate]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Look by look: of no difference, or for `~` of none beyond the margin; and of none within the margin."""
    estimates = many.Estimates.of([one for each in looks for one in each] or [Estimate(0, None)])
    asked = [question for question, each in zip(questions, looks, strict=True) for _ in each]
    margins = np.array([question.margin for question in asked] or [0.0])
    values = np.array([-question.tolerance for question in asked] or [0.0])
    same = np.array([question.asked == "same" for question in asked] or [False])
    differing = many.two_sided(estimates, values)
    differing[same] = many.beyond(estimates[same], margins[same])
    found = differing.tolist(), many.equivalence(estimates, margins).tolist()
    ends = list(accumulate(len(each) for each in looks))
    parts = [slice(end - len(each), end) for end, each in zip(ends, looks, strict=True)]
    return [found[0][part] for part in parts], [found[1][part] for part in parts]


@dataclass(frozen=True)
class _Tested:
    """The verdict on a question, and its corrected p-values if it was tested."""

    verdict: str
    p_holm: float | None = None
    p_equivalent: float | None = None


def _tested(
    question: Question,
    looks: Sequence[Estimate],
    p_values: Sequence[float],
    corrected: Corrected,
    max_seeds: int | None,
) -> _Tested:
    estimate = looks[-1]
    untested = question.excluded or _untested(question, estimate)
    if untested is not None:
        return _Tested(untested)
    p_holm = corrected.differ[question.difference_key]
    # of a part of the claim that is about a row's comparison, that row's; there is none with a tolerance
    p_equivalent = None if question.tolerance else corrected.alike.get(question.equivalence_key)
    decisive = -1 if max_seeds is None else sequential.deciding_look(p_values, looks, max_seeds)
    verdicts = {_verdict(question, look, p_holm, p_equivalent) for look in (looks[decisive], estimate)}
    # all seeds must still say what the look said that decided: it is their difference that a row shows
    verdict = verdicts.pop() if len(verdicts) == 1 else INCONCLUSIVE
    if question.asked not in ("better", "same") and verdict != _equivalent(question):
        p_equivalent = None
    return _Tested(verdict, p_holm, p_equivalent)


@dataclass
class _Power:
    """As in `Outcome`; None where it is not asked."""

    detectable: float | None = None
    seeds_needed: int | None = None
    exaggeration: float | None = None


def _powers(
    questions: Sequence[Question], estimates: Sequence[Estimate], tested: Sequence[_Tested], level: float
) -> list[_Power]:
    """What seeds detect where nothing was found, and by how much a finding exaggerates."""
    found = [_Power() for _ in questions]

    def of(places: Sequence[int]) -> tuple[many.Estimates, NDArray[np.float64]]:
        margins = np.array([questions[place].margin for place in places])
        return many.Estimates.of([estimates[place] for place in places]), margins

    open_ones = [place for place, one in enumerate(tested) if one.verdict == INCONCLUSIVE]
    if open_ones:
        spreads, margins = of(open_ones)
        detects = many.detectable(spreads, level).tolist()
        needed = many.seeds_needed(spreads, margins, level).tolist()
        for place, difference, seeds in zip(open_ones, detects, needed, strict=True):
            found[place].detectable = difference
            found[place].seeds_needed = None if isnan(seeds) else int(seeds)
    significant = [
        place
        for place, (question, one) in enumerate(zip(questions, tested, strict=True))
        if one.p_holm is not None
        and one.p_holm < ALPHA
        and question.asked != "same"
        and not question.tolerance
    ]
    if significant:
        for place, times in zip(
            significant, many.exaggeration(*of(significant), level).tolist(), strict=True
        ):
            found[place].exaggeration = times
    return found


def _outcome(
    question: Question,
    estimate: Estimate,
    p_values: Sequence[float],
    tested: _Tested,
    power: _Power,
    corrected: Corrected,
    max_seeds: int | None,
) -> Outcome:
    chance = None
    if max_seeds is not None:
        if tested.verdict == TOO_FEW and not question.excluded:  # a failed run may have left too few
            chance = 1.0
        elif tested.verdict == INCONCLUSIVE and estimate.n < max_seeds:
            chance = _chance(question, estimate, corrected, max_seeds)
    return Outcome(
        n=estimate.n,
        difference=estimate.mean,
        half_width=estimate.half_width,
        sd=estimate.sd,
        image_error=sqrt(estimate.image_variance),
        images=estimate.units,
        p=p_values[-1] if estimate.sd else None,
        p_holm=tested.p_holm,
        p_equivalent=tested.p_equivalent,
        margin=question.margin,
        detectable=power.detectable,
        seeds_needed=power.seeds_needed,
        exaggeration=power.exaggeration,
        published=question.published,
        chance=chance,
        rows=tuple(index for _, index in question.terms),
        verdict=tested.verdict,
    )


def _chance(question: Question, estimate: Estimate, corrected: Corrected, max_seeds: int) -> float:
    """The probability that more seeds decide it."""
    differ, alike = corrected.next_level(corrected.differ), corrected.next_level(corrected.alike)
    value, margin = -question.tolerance, question.margin
    if question.asked == "same":
        return sequential.chance(estimate, max_seeds, inside=(margin, alike), outside=(margin, differ))
    inside = (margin, alike) if question.asked == "better" else None
    return sequential.chance(estimate, max_seeds, differs=(value, differ), inside=inside)


def _untested(question: Question, estimate: Estimate) -> str | None:
    """Why a question is not tested; None if it is."""
    if not question.terms:
        return "same runs"
    if estimate.n < LEAST_SEEDS:
        return TOO_FEW
    return "no spread" if estimate.without_spread else None


def _verdict(question: Question, estimate: Estimate, p_holm: float, p_equivalent: float | None) -> str:
    assert estimate.mean is not None
    within = abs(estimate.mean) < question.margin
    equivalent = p_equivalent is not None and p_equivalent < ALPHA and within
    differs, above = p_holm < ALPHA, estimate.mean > -question.tolerance
    if question.asked == "same":
        return "supported" if equivalent else "contradicted" if differs and not within else INCONCLUSIVE
    if not differs:
        return _equivalent(question) if equivalent else INCONCLUSIVE
    if question.asked == "better":
        return "better" if above == question.column.higher_is_better else "worse"
    return "supported" if above else "contradicted"


def _equivalent(question: Question) -> str:
    return f"equivalent within {question.margin:g}"
