"""P-values and futility of an analysis that looks at its comparisons after every seed, from the third one.

A test that is repeated after every seed is wrong far more often than 5 %. Here a comparison has one p-value
for all of its looks, the smallest of G(p_n / w_n)^(1 - k) p_n^k. p_n is the p-value of the first n seeds,
w_n = sqrt((n - 2) / (N - 2)) gives later looks more of the error, N is the largest number of seeds, and G
is the distribution of the smallest p_n / w_n without an effect, for the paired t-test over seeds. It can be
used like any p-value, whenever the study stops and for whatever reason, and corrected for several comparisons
(Maurer and Bretz 2013).

Noise of the test images is the same at all looks, which makes them more alike: if there were no other noise,
looking again would find nothing new and p_n would need no correction. k grows with its share of the
variance, from 0 without it to 1 at the last look if it is all. The share is that of the look's own estimate:
the p-value depends on nothing that comes later, and never rises with more looks.
benchmarks/statistics/sequential_errors.py checks the error rates by simulation.
"""

from bisect import bisect
from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

from focal_lab.report.statistics.boundaries import LEVELS, MINIMA
from focal_lab.report.statistics.crossed import Estimate, critical_at

FIRST_LOOK = 3
# When a comparison gets no more seeds, see `futile`; both were chosen by simulation (docs/statistics.md).
_FUTILE, _FIRST_FUTILE = 0.35, 4
# A value and the level at which it is tested.
Target = tuple[float, float]


def weight(seeds: float, most: float) -> float:
    """The share of the last look's threshold that a look after so many seeds has."""
    return sqrt((seeds - 2) / (most - 2))


def image_share(per_seed: float, images: float, most: int) -> float:
    """The share of the test images in the variance of the last look's mean.

    Args:
        per_seed: variance of the difference for one seed.
        images: variance of the mean difference that more seeds do not reduce.
        most: the largest number of seeds.
    """
    variance = per_seed / most + images
    return images / variance if variance else 0.0


def alikeness(share: Any, seeds: float, most: int) -> Any:
    """k: 0 if a look needs all of the correction, 1 if it needs none.

    Chosen by simulation (docs/statistics.md). Few seeds know too little of their spread: if it seems small,
    the images' share seems large.

    Args:
        share: `image_share`, a number or an array.
        seeds: of the look.
        most: the largest number of seeds.
    """
    return share**4 * (seeds - FIRST_LOOK) / (most - FIRST_LOOK)


def one_sided(p_values: Sequence[float], estimates: Sequence[Estimate], most: int) -> float:
    """The p-value of one-sided tests after 3, 4, ... seeds.

    Args:
        p_values: one for each look so far.
        estimates: which they are of.
        most: the largest number of seeds, which was fixed before the first look.
    """
    return min(_of_looks(p_values, estimates, most))


def two_sided(p_values: Sequence[float], estimates: Sequence[Estimate], most: int) -> float:
    """The p-value of two-sided tests after 3, 4, ... seeds: twice the smaller one of both sides."""
    return min(1.0, 2 * one_sided([p / 2 for p in p_values], estimates, most))


def deciding_look(p_values: Sequence[float], estimates: Sequence[Estimate], most: int) -> int:
    """The index of the look whose two-sided p-value counts."""
    found = _of_looks([p / 2 for p in p_values], estimates, most)
    return found.index(min(found))


def threshold(alpha: float, most: int, share: float = 0.0) -> float:
    """The one-sided p-value that the last look must reach, by the share of the test images."""
    of_alpha, minima = _curve(most)
    k: float = alikeness(share, most, most)
    levels = [_between(level, minimum, k) for level, minimum in zip(of_alpha, minima, strict=True)]
    if alpha <= levels[0]:
        return minima[0] * alpha / levels[0]
    return _interpolated(levels, minima, min(alpha, levels[-1]))


def futile(chance: float, seeds: int, most: int) -> bool:
    """Whether a comparison is so unlikely to be decided that it gets no more seeds.

    The chance that is worth more seeds is the smaller, the fewer are left. Three seeds know too little of
    their spread.
    """
    return seeds >= _FIRST_FUTILE and chance < _FUTILE * sqrt(1 - seeds / most)


def chance(
    estimate: Estimate,
    most: int,
    *,
    differs: Target | None = None,
    inside: Target | None = None,
    outside: Target | None = None,
) -> float:
    """The probability that a comparison is decided by its last seed, given those so far.

    This is the predictive probability (Spiegelhalter, Freedman and Blackburn 1986) of the last look, if
    nothing is known about the difference beforehand and the spread is as estimated.

    Args:
        estimate: of the seeds so far, at least 3.
        most: the largest number of seeds.
        differs: a value from which a difference in either direction decides, and the test's level.
        inside: a margin within which the difference must be shown to be, and the level.
        outside: a margin beyond which it must be shown to be, and the level.
    """
    mean = estimate.mean
    assert mean is not None
    from scipy.special import stdtr

    per_seed = estimate.n * estimate.seed_variance
    variance = per_seed / most + estimate.image_variance
    freedom, units = most - 1, max(1, estimate.units - 1)
    left = sqrt(per_seed * max(0.0, 1 / estimate.n - 1 / most))

    share = image_share(per_seed, estimate.image_variance, most)

    def needed(level: float) -> float:
        """How far from a value the last mean must be, for a one-sided test."""
        alpha = 2 * threshold(level, most, share)
        return float(critical_at(alpha, freedom, units, 1 - share)) * sqrt(variance)

    def above(value: float) -> float:
        """The probability that the last mean is above a value."""
        distance = mean - value
        return float(stdtr(estimate.n - 1, distance / left)) if left else float(distance > 0)

    found = 0.0
    if differs is not None:
        value, distance = differs[0], needed(differs[1] / 2)
        found += above(value + distance) + 1 - above(value - distance)
    if outside is not None:
        distance = outside[0] + needed(outside[1])
        found += above(distance) + 1 - above(-distance)
    if inside is not None:
        distance = inside[0] - needed(inside[1])
        found += above(-distance) - above(distance) if distance > 0 else 0.0
    return min(1.0, found)


def _of_looks(p_values: Sequence[float], estimates: Sequence[Estimate], most: int) -> list[float]:
    """One-sided p-values of looks, corrected for there being several."""
    return [_of_look(p, estimate, most) for p, estimate in zip(p_values, estimates, strict=True)]


def _of_look(p: float, estimate: Estimate, most: int) -> float:
    share = image_share(estimate.n * estimate.seed_variance, estimate.image_variance, most)
    k: float = alikeness(share, estimate.n, most)
    return _between(_probability(p / weight(estimate.n, most), most), p, k)


def _between(corrected: float, plain: float, k: float) -> float:
    found: float = corrected ** (1 - k) * plain**k
    return found


def _probability(smallest: float, most: int) -> float:
    """G: the probability of so small a minimum without an effect."""
    levels, minima = _curve(most)
    if smallest <= 0:
        return 0.0
    if smallest < minima[0]:  # beyond the simulated tail: the sum of all looks' probabilities bounds it
        bound = smallest * sum(weight(look, most) for look in range(FIRST_LOOK, most + 1))
        return min(levels[0], bound)
    if smallest >= minima[-1]:
        return 1.0
    return _interpolated(minima, levels, smallest)


def _curve(most: int) -> tuple[Sequence[float], Sequence[float]]:
    """Levels in ascending order, and their minima; between tabulated numbers of seeds the stricter ones."""
    tabulated = sorted(MINIMA)
    return LEVELS, MINIMA[tabulated[min(bisect(tabulated, most - 1), len(tabulated) - 1)]]


def _interpolated(places: Sequence[float], values: Sequence[float], place: float) -> float:
    """On double logarithmic scales."""
    right = min(max(bisect(places, place), 1), len(places) - 1)
    x0, x1, y0, y1 = (log(v) for v in (places[right - 1], places[right], values[right - 1], values[right]))
    return exp(y0 + (y1 - y0) * (log(place) - x0) / (x1 - x0))
