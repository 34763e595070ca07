"""P-values and futility of an analysis that looks at its comparisons after every seed, from the third one.

A test that is repeated after every seed is wrong far more often than 5 %. Here a comparison has one p-value
for all of its looks: G(min over looks of p_n / w_n), where p_n is the p-value of the first n seeds,
w_n = sqrt((n - 2) / (N - 2)) gives later looks more of the error, N is the largest number of seeds, and G
is the distribution of that minimum without an effect, for the paired t-test over seeds. It can be used like
any p-value, whenever the study stops and for whatever reason, and corrected for several comparisons (Maurer
and Bretz 2013). Noise that all looks share, as that of the test images is, makes them more alike: G is then
too large rather than too small. benchmarks/statistics/until_decided.py checks this by simulation.
"""

from bisect import bisect
from collections.abc import Sequence
from math import exp, log, sqrt

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


def one_sided(p_values: Sequence[float], most: int) -> float:
    """The p-value of one-sided tests after 3, 4, ... seeds.

    Args:
        p_values: one for each look so far.
        most: the largest number of seeds, which was fixed before the first look.
    """
    return _probability(_smallest(p_values, most), most)


def two_sided(p_values: Sequence[float], most: int) -> float:
    """The p-value of two-sided tests after 3, 4, ... seeds: twice the smaller one of both sides."""
    return min(1.0, 2 * _probability(_smallest(p_values, most) / 2, most))


def deciding_look(p_values: Sequence[float], most: int) -> int:
    """The index of the look whose p-value counts."""
    return min(range(len(p_values)), key=lambda look: p_values[look] / weight(look + FIRST_LOOK, most))


def threshold(alpha: float, most: int) -> float:
    """The one-sided p-value that the last look must reach."""
    levels, minima = _curve(most)
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

    def needed(level: float) -> float:
        """How far from a value the last mean must be, for a one-sided test."""
        share = per_seed / most / variance if variance else 1.0
        return float(critical_at(2 * threshold(level, most), freedom, units, share)) * sqrt(variance)

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


def _smallest(p_values: Sequence[float], most: int) -> float:
    return min(p / weight(look + FIRST_LOOK, most) for look, p in enumerate(p_values))


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
