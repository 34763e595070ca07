"""Power of a comparison: what its seeds can detect, how many it needs, and how much a finding exaggerates.

All are for a true difference d and a two-sided test at level alpha: the estimate is normal around d, its
variance is estimated as in `crossed`. They integrate over the distribution of the variance between seeds.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.statistics.crossed import Estimate, critical_at, special

POWER = 0.8
MOST_SEEDS = 1000
# Points of the integral over the variance between seeds.
NODES = 64
_MOST_STEPS, _ACCURACY = 100, 1e-5
_GUESSES = 3
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """What decides the power of a comparison.

    Attributes:
        per_seed: variance of the difference between two cells for one seed.
        images: variance of the mean difference that more seeds do not reduce.
        units: independent test images behind `images`; 0 if unknown.
    """

    per_seed: float
    images: float
    units: int

    @classmethod
    def of(cls, estimate: Estimate) -> "Spread":
        """The spread that was estimated from seeds."""
        return cls(estimate.n * estimate.seed_variance, estimate.image_variance, estimate.units)


def power(difference: float, spread: Spread, seeds: int, alpha: float) -> float:
    """Probability that a true difference is found significant, with the right sign."""
    error = _error(spread, seeds)
    if error == 0:
        return float(difference > 0)
    limits, weights = _limits(spread, seeds, alpha)
    return float(weights @ normal((difference - limits) / error))


def detectable(spread: Spread, seeds: int, alpha: float, wanted: float = POWER) -> float:
    """The least true difference that so many seeds find with that probability."""
    error = _error(spread, seeds)
    if error == 0:
        return 0.0
    limits, weights = _limits(spread, seeds, alpha)
    # exact where the noise of the estimate is small; then Newton's method, in standard errors
    difference = float(limits[round((1 - wanted) * (NODES - 1))])  # in falling order
    for _ in range(_MOST_STEPS):
        above = (difference - limits) / error
        step = (wanted - float(weights @ normal(above))) / max(float(weights @ density(above)), 1e-3)
        step = min(2.0, max(-2.0, step))
        difference += step * error
        if abs(step) < _ACCURACY:
            break
    return difference


def seeds_needed(difference: float, spread: Spread, alpha: float, wanted: float = POWER) -> int | None:
    """The least number of seeds, 3 or more, that finds a true difference with that probability.

    None if 1,000 do not: then the test images are too few, or the spread between seeds is too large.
    """

    def enough(seeds: int) -> bool:
        return power(difference, spread, seeds, alpha) >= wanted

    # power grows with the seeds: steps that double lead from a guess to both sides of the number
    low, high, step = 2, MOST_SEEDS + 1, 1
    place = _guess(difference, spread, alpha, wanted)
    while high - low > 1:
        if enough(place):
            high = place
            place = max(high - step, low + 1) if low == 2 else (low + high) // 2
        else:
            low = place
            place = min(low + step, high - 1) if high > MOST_SEEDS else (low + high) // 2
        step *= 2
    return high if high <= MOST_SEEDS else None


def _guess(difference: float, spread: Spread, alpha: float, wanted: float) -> int:
    """The seeds that a difference needs if the variance is known to be as estimated, 3 to 1,000."""
    beyond, units, seeds = special().ndtri(wanted), max(1, spread.units - 1), 10
    for _ in range(_GUESSES):
        variance = spread.per_seed / seeds + spread.images
        if variance == 0:
            return 3
        share = spread.per_seed / seeds / variance
        from_seeds = (
            difference / (critical_at(alpha, seeds - 1, units, share) + beyond)
        ) ** 2 - spread.images
        most = spread.per_seed / MOST_SEEDS
        seeds = max(3, ceil(spread.per_seed / from_seeds)) if from_seeds > most else MOST_SEEDS
    return seeds


def exaggeration(difference: float, spread: Spread, seeds: int, alpha: float) -> float:
    """How many times too large a true difference is reported on average where it is found significant.

    The type M error of Gelman and Carlin (2014).
    """
    error = _error(spread, seeds)
    if error == 0:
        return 1.0
    limits, weights = _limits(spread, seeds, alpha)
    above, below = (limits - difference) / error, (-limits - difference) / error
    # E[|x|; |x| > limit] of a normal x around the difference
    size = (
        difference * normal(-above)
        + error * density(above)
        - difference * normal(below)
        + error * density(below)
    )
    found = float(weights @ (normal(-above) + normal(below)))
    return float(weights @ size) / found / difference if found > 0 else inf


def _error(spread: Spread, seeds: int) -> float:
    return sqrt(spread.per_seed / seeds + spread.images)


def _limits(spread: Spread, seeds: int, alpha: float) -> tuple[Array, Array]:
    """The least significant difference for each possible estimate of the variance, and its weight."""
    scales, weights = variance_quantiles(seeds), np.full(NODES, 1 / NODES)
    from_seeds = spread.per_seed / seeds * scales
    variances = from_seeds + spread.images
    # the least of the scales is above 0
    shares = from_seeds / variances if spread.per_seed or spread.images else np.ones_like(scales)
    critical = critical_at(alpha, seeds - 1, max(1, spread.units - 1), shares)
    return critical * np.sqrt(variances), weights


@lru_cache(maxsize=2048)
def variance_quantiles(seeds: int) -> Array:
    """Quantiles of an estimated variance over the true one, which have equal weights."""
    tails = (np.arange(NODES) + 0.5) / NODES
    quantiles: Array = special().chdtri(seeds - 1, tails) / (seeds - 1)
    return quantiles


def normal(value: Any) -> Any:
    """Distribution function of the standard normal."""
    return special().ndtr(value)


def density(value: Array) -> Array:
    """Density of the standard normal."""
    density: Array = np.exp(-(value**2) / 2) / np.sqrt(2 * np.pi)
    return density
