"""Intervals and tests of a mean over seeds and test images, which are crossed: every seed sees every image.

Shape suffixes: S seeds, U units (test images, or the sources that several of them share), C contrasts.

The variance of such a mean has two parts. Seeds contribute MS_seeds / (S U), with S - 1 degrees of freedom,
and units (MS_units - MS_rest) / (S U), where MS are the mean squares of the two-way analysis of variance.
The critical value for their sum lies between Student's for the two parts alone. Satterthwaite's degrees of
freedom are too many where seeds dominate: with three seeds they give 5 false positives instead of 1 at the
level 0.005, which a correction for several comparisons needs. `critical_value` interpolates instead;
docs/statistics.md has the simulation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import exp, fsum, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
# P-values below this are equal to it; steps and accuracy (of the logarithm) of their computation.
LEAST, MOST_STEPS, ACCURACY = 1e-30, 100, 1e-7
# Values whose standard deviation is smaller are equal, but for rounding.
EQUAL = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its variance.

    Attributes:
        n: seeds.
        mean: None without any.
        sd: standard deviation between seeds (n - 1); None for fewer than two.
        seed_variance: of the mean, from seeds; includes what differs between seeds on single images.
        image_variance: of the mean, from test images; 0 if it is unknown.
        units: independent test images, or sources of test images, behind `image_variance`; 0 if unknown.
    """

    n: int
    mean: float | None
    sd: float | None = None
    seed_variance: float = 0.0
    image_variance: float = 0.0
    units: int = 0

    @property
    def variance(self) -> float:
        """Of the mean."""
        return self.seed_variance + self.image_variance

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval; None for fewer than two seeds."""
        if self.sd is None:
            return None
        return critical_value(ALPHA, self) * sqrt(self.variance)

    @property
    def without_spread(self) -> bool:
        """Whether all seeds have the same value: then nothing is known about what other seeds would have."""
        return self.sd == 0


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed; test images count as fixed."""
    n = len(values)
    mean = fsum(values) / n if n else None
    if mean is None or n == 1:
        return Estimate(n, mean)
    sd = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1))
    if sd < EQUAL:
        sd = 0.0
    return Estimate(n, mean, sd, sd * sd / n)


def image_variance(values_SU: NDArray[Any], sizes_U: NDArray[Any]) -> float:
    """Variance of the mean from test images: (MS_units - MS_rest) / (S U), at least 0.

    Args:
        values_SU: sum of each unit's images, scaled so that the mean over units is the metric.
        sizes_U: images of each unit, over their mean number.
    """
    seeds, units = values_SU.shape
    if seeds < 2 or units < 2:
        return 0.0
    # a unit of more images than others has a larger sum, which is not spread (ratio estimate)
    means_S = np.add.reduce(values_SU, axis=1, dtype=np.float64) / units  # twice as fast as `mean`
    rest_SU = values_SU - means_S[:, None] * sizes_U
    unit_U = np.add.reduce(rest_SU, axis=0) / seeds
    total, squares = float(np.vdot(rest_SU, rest_SU)), seeds * float(np.vdot(unit_U, unit_U))
    of_units = squares / (units - 1)
    of_rest = max(0.0, total - squares) / ((seeds - 1) * (units - 1))
    variance: float = max(0.0, of_units - of_rest) / (seeds * units)
    return variance


def image_variances(values_of_seeds: Iterable[NDArray[Any]], sizes_U: NDArray[Any]) -> NDArray[np.float64]:
    """`image_variance` of several contrasts, of which one seed is in memory at a time.

    Args:
        values_of_seeds: for each seed the sums of units, as in `image_variance`, (C, U).
        sizes_U: images of each unit, over their mean number.
    """
    seeds, units = 0, len(sizes_U)
    sum_CU: Any = 0.0
    total_C: Any = 0.0
    for values_CU in values_of_seeds:
        rest_CU = values_CU - values_CU.mean(axis=1, keepdims=True, dtype=np.float64) * sizes_U
        sum_CU = sum_CU + rest_CU
        total_C = total_C + np.einsum("cu,cu->c", rest_CU, rest_CU)
        seeds += 1
    squares_C: NDArray[np.float64] = np.einsum("cu,cu->c", sum_CU, sum_CU) / seeds
    if seeds < 2 or units < 2:
        return np.zeros_like(squares_C)
    of_rest_C = np.maximum(0.0, total_C - squares_C) / ((seeds - 1) * (units - 1))
    variance_C: NDArray[np.float64] = np.maximum(0.0, squares_C / (units - 1) - of_rest_C) / (seeds * units)
    return variance_C


def critical_value(alpha: float, estimate: Estimate) -> float:
    """How many standard errors from the mean a two-sided interval of level 1 - alpha ends.

    With q_s, q_u Student's quantiles of seeds and units, and w the share of seeds in the variance,
    q^2 = q_u^2 + (q_s^2 - q_u^2) w^(1 + 2.7 alpha^0.2 q_u / q_s). The exponent was fitted: with it the error
    rate is at most 1.09 alpha, for alpha from 0.0001 to 0.2 and 3 to 20 seeds, if all is normal and the
    variance from units is known (benchmarks/statistics/critical_values.py).
    """
    return float(critical_at(alpha, *_parts(estimate)))


def two_sided(estimate: Estimate, value: float = 0.0) -> float:
    """P-value of the test that the population's mean is `value`.

    1 for fewer than two seeds, and where all values are equal: then nothing is known about their spread.
    """
    if estimate.mean is None or not estimate.sd:
        return 1.0
    return _p_at(abs(estimate.mean - value), estimate)


def equivalence(estimate: Estimate, margin: float) -> float:
    """P-value of two one-sided tests (TOST, Schuirmann 1987) that the mean is outside -margin .. margin."""
    if estimate.mean is None:
        return 1.0
    # the test at the nearer end has the larger p-value
    p = two_sided(estimate, margin if estimate.mean > 0 else -margin)
    return p / 2 if abs(estimate.mean) < margin else 1 - p / 2


def beyond(estimate: Estimate, margin: float) -> float:
    """P-value of the test that the mean is within -margin .. margin; `two_sided` for a margin of 0.

    That of the least favourable mean, an end of the range: both tails count, as the other one does if the
    range is narrow (the interval null hypothesis of Hodges and Lehmann, 1954).
    """
    if estimate.mean is None or not estimate.sd:
        return 1.0
    distance = abs(estimate.mean)
    if distance <= margin:
        return 1.0
    return (_p_at(distance - margin, estimate) + _p_at(distance + margin, estimate)) / 2


def _p_at(distance: float, estimate: Estimate) -> float:
    """Two-sided p-value of a mean so far from that of the null hypothesis."""
    if distance <= EQUAL:
        return 1.0
    return _level(distance / sqrt(estimate.variance), *_parts(estimate))


def _parts(estimate: Estimate) -> tuple[float, float, float]:
    """Degrees of freedom of seeds and of units, and the share of seeds in the variance."""
    share = 1.0 if estimate.image_variance == 0 else estimate.seed_variance / estimate.variance
    return estimate.n - 1, max(1, estimate.units - 1), share


def critical_at(alpha: float, seeds: float, units: float, share: Any) -> Any:
    """`critical_value` by degrees of freedom and share of seeds in the variance, a number or an array."""
    of_seeds, of_units = _students(seeds, alpha), _students(units, alpha)
    if of_seeds < of_units:  # more seeds than units: the roles change
        of_seeds, of_units, share = of_units, of_seeds, 1 - share
    exponent = 1 + 2.7 * alpha**0.2 * of_units / of_seeds
    squared: Any = of_units**2 + (of_seeds**2 - of_units**2) * share**exponent
    return squared**0.5


@lru_cache(maxsize=1024)
def _students(freedom: float, alpha: float) -> float:
    """Student's two-sided critical value."""
    return -float(special().stdtrit(freedom, alpha / 2))


@cache
def special() -> Any:
    """The module `scipy.special`, which takes a third of a second to import."""
    from scipy import special

    return special


def _level(distance: float, seeds: float, units: float, share: float) -> float:
    """The alpha whose critical value is `distance`."""
    stdtr = special().stdtr
    few, many = min(seeds, units), max(seeds, units)
    if share == 1.0 or seeds == units:
        return 2 * float(stdtr(seeds, -distance))
    # Student's levels for either part alone enclose it; regula falsi (Illinois) of the logarithms
    low, high = (log(max(2 * float(stdtr(freedom, -distance)), LEAST)) for freedom in (many, few))
    if low == high:
        return exp(low)
    target = log(distance)
    at_low, at_high = (log(critical_at(exp(x), seeds, units, share)) - target for x in (low, high))
    if at_low <= 0 or at_high >= 0:  # an end, up to rounding
        return exp(low if at_low <= 0 else high)
    found = low
    for _ in range(MOST_STEPS):
        found = high - at_high * (high - low) / (at_high - at_low)
        at_found = log(critical_at(exp(found), seeds, units, share)) - target
        if abs(at_found) < ACCURACY:
            break
        if at_found > 0:
            low, at_low, at_high = found, at_found, at_high / 2
        else:
            high, at_high, at_low = found, at_found, at_low / 2
    return exp(found)
