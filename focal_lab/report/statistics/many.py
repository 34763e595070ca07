"""P-values and power of many comparisons at once: those of `crossed` and `power`, in a tenth of their time.

Shape suffixes: C comparisons, N points of the integral over the variance between seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.statistics import crossed
from focal_lab.report.statistics.crossed import Estimate, special
from focal_lab.report.statistics.power import MOST_SEEDS, NODES, POWER, density, normal, variance_quantiles

Array = NDArray[np.float64]
# Comparisons whose integrals are in memory at a time.
BLOCK = 2048


@dataclass(frozen=True)
class Estimates:
    """Several `Estimate`s, each attribute an array, (C,).

    Attributes:
        seeds, units: degrees of freedom.
        share: of seeds in the variance.
        known: whether there is a spread.
    """

    n: NDArray[np.int64]
    mean: Array
    seed_variance: Array
    image_variance: Array
    seeds: Array
    units: Array
    share: Array
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> "Estimates":
        """From one or more estimates."""
        n, mean, sd, seed_variance, image_variance, units = np.array(
            [(e.n, e.mean or 0.0, e.sd or 0.0, e.seed_variance, e.image_variance, e.units) for e in estimates]
        ).T
        variance = seed_variance + image_variance
        share = np.divide(seed_variance, variance, out=np.ones_like(n), where=image_variance > 0)
        return cls(
            *(n.astype(np.int64), mean, seed_variance, image_variance),
            *(n - 1, np.maximum(1, units - 1), share, sd > 0),
        )

    def __getitem__(self, which: Any) -> "Estimates":
        return Estimates(**{name: values[which] for name, values in vars(self).items()})


def two_sided(estimates: Estimates, values: Array) -> Array:
    """`crossed.two_sided` of each estimate and value."""
    return _p_at(np.abs(estimates.mean - values), estimates)


def equivalence(estimates: Estimates, margins: Array) -> Array:
    """`crossed.equivalence` of each estimate that has a mean, and margin."""
    p = two_sided(estimates, np.where(estimates.mean > 0, margins, -margins))
    return np.where(np.abs(estimates.mean) < margins, p / 2, 1 - p / 2)


def beyond(estimates: Estimates, margins: Array) -> Array:
    """`crossed.beyond` of each estimate and margin."""
    distance = np.abs(estimates.mean)
    both = (_p_at(distance - margins, estimates) + _p_at(distance + margins, estimates)) / 2
    return np.where(estimates.known & (distance > margins), both, 1.0)


def _p_at(distance: Array, estimates: Estimates) -> Array:
    found = np.ones_like(distance)
    far = estimates.known & (distance > crossed.EQUAL)
    if far.any():
        e = estimates[far]
        found[far] = _levels(distance[far] / np.sqrt(e.seed_variance + e.image_variance), e)
    return found


def _levels(distance: Array, e: Estimates) -> Array:
    """The levels whose critical values are these distances."""
    stdtr = special().stdtr
    found: Array = 2 * stdtr(e.seeds, -distance)
    mixed = np.flatnonzero((e.share != 1) & (e.seeds != e.units))
    e, target = e[mixed], np.log(distance[mixed])
    # regula falsi between Student's levels for either part alone, as in `crossed`
    low, high = (
        np.log(np.maximum(2 * stdtr(freedom, -distance[mixed]), crossed.LEAST))
        for freedom in (np.maximum(e.seeds, e.units), np.minimum(e.seeds, e.units))
    )
    at_low, at_high = (_log_critical(x, e) - target for x in (low, high))
    level = np.where((low == high) | (at_low <= 0), low, high)
    left = np.flatnonzero((low != high) & (at_low > 0) & (at_high < 0))
    for _ in range(crossed.MOST_STEPS):
        if not len(left):
            break
        a, b, at_a, at_b = low[left], high[left], at_low[left], at_high[left]
        x = level[left] = b - at_b * (b - a) / (at_b - at_a)
        at_x = _log_critical(x, e[left]) - target[left]
        above = at_x > 0
        low[left], high[left] = np.where(above, x, a), np.where(above, b, x)
        at_low[left] = np.where(above, at_x, at_a / 2)
        at_high[left] = np.where(above, at_b / 2, at_x)
        left = left[np.abs(at_x) >= crossed.ACCURACY]
    found[mixed] = np.exp(level)
    return found


def _log_critical(log_alpha: Array, e: Estimates) -> Array:
    critical = _critical(np.exp(log_alpha), e.seeds, e.units, e.share)
    return np.log(critical)


def _critical(alpha: Array | float, seeds: Array, units: Array, share: Array) -> Array:
    """`crossed.critical_at` of arrays; the last axis of `share` may be one more."""
    students: list[Array] = [-special().stdtrit(freedom, np.divide(alpha, 2)) for freedom in (seeds, units)]
    of_seeds, of_units = np.maximum(*students), np.minimum(*students)
    swapped = students[0] < students[1]  # more seeds than units
    exponent = 1 + 2.7 * np.power(alpha, 0.2) * of_units / of_seeds
    if share.ndim > of_seeds.ndim:
        swapped, exponent = swapped[:, None], exponent[:, None]
        of_seeds, of_units = of_seeds[:, None], of_units[:, None]
    squared: Array = (
        of_units**2 + (of_seeds**2 - of_units**2) * np.where(swapped, 1 - share, share) ** exponent
    )
    return np.sqrt(squared)


def _by_blocks(function: Callable[..., Array], estimates: Estimates, *arrays: Array) -> Array:
    """A function of comparisons, some of them at a time."""
    parts = [slice(start, start + BLOCK) for start in range(0, len(estimates.n), BLOCK)]
    found = [function(estimates[part], *(values[part] for values in arrays)) for part in parts]
    return np.concatenate(found) if found else np.zeros(0)


def detectable(estimates: Estimates, alpha: float, wanted: float = POWER) -> Array:
    """`power.detectable` with the spread and the seeds of each estimate."""
    return _by_blocks(lambda part: _detectable(part, alpha, wanted), estimates)


def _detectable(e: Estimates, alpha: float, wanted: float) -> Array:
    error, limits_CN = _limits(e, e.n, alpha)
    found = np.where(error > 0, limits_CN[:, round((1 - wanted) * (NODES - 1))], 0.0)
    left = np.flatnonzero(error > 0)
    for _ in range(crossed.MOST_STEPS):
        if not len(left):
            break
        above_CN = (found[left, None] - limits_CN[left]) / error[left, None]
        step = (wanted - normal(above_CN).mean(axis=1)) / np.maximum(density(above_CN).mean(axis=1), 1e-3)
        step = np.clip(step, -2.0, 2.0)
        found[left] += step * error[left]
        left = left[np.abs(step) >= 1e-5]
    return found


def seeds_needed(estimates: Estimates, differences: Array, alpha: float, wanted: float = POWER) -> Array:
    """`power.seeds_needed` of each difference, with the spread of each estimate; NaN for None."""
    return _by_blocks(lambda part, values: _seeds_needed(part, values, alpha, wanted), estimates, differences)


def _seeds_needed(e: Estimates, difference: Array, alpha: float, wanted: float) -> Array:
    low, high = np.full(len(e.n), 2), np.full(len(e.n), MOST_SEEDS + 1)
    place, step = _guess(e, difference, alpha, wanted), 1
    left = np.arange(len(e.n))
    while len(left):
        error, limits_CN = _limits(e[left], place[left], alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            power = normal((difference[left, None] - limits_CN) / error[:, None]).mean(axis=1)
        enough = np.where(error > 0, power >= wanted, difference[left] > 0)
        high[left] = np.where(enough, place[left], high[left])
        low[left] = np.where(enough, low[left], place[left])
        a, b = low[left], high[left]
        halfway = (a + b) // 2
        down = np.where(a == 2, np.maximum(b - step, a + 1), halfway)
        up = np.where(b > MOST_SEEDS, np.minimum(a + step, b - 1), halfway)
        place[left] = np.where(enough, down, up)
        left = left[b - a > 1]
        step *= 2
    return np.where(high <= MOST_SEEDS, high, np.nan)


def _guess(e: Estimates, difference: Array, alpha: float, wanted: float) -> NDArray[np.int64]:
    per_seed, found = e.n * e.seed_variance, np.full(len(e.n), 10.0)
    for _ in range(3):
        variance = per_seed / found + e.image_variance
        share = np.divide(per_seed / found, variance, out=np.ones_like(found), where=variance > 0)
        critical = _critical(alpha, found - 1, e.units, share)
        from_seeds = (difference / (critical + special().ndtri(wanted))) ** 2 - e.image_variance
        few = from_seeds > per_seed / MOST_SEEDS
        needed = np.divide(per_seed, from_seeds, out=np.zeros_like(found), where=few)
        found = np.where(few, np.maximum(3, np.ceil(needed)), MOST_SEEDS)
    return np.where(per_seed + e.image_variance > 0, found, 3).astype(np.int64)


def exaggeration(estimates: Estimates, differences: Array, alpha: float) -> Array:
    """`power.exaggeration` of each difference, with the spread and the seeds of each estimate."""
    return _by_blocks(lambda part, values: _exaggeration(part, values, alpha), estimates, differences)


def _exaggeration(e: Estimates, difference: Array, alpha: float) -> Array:
    error, limits_CN = _limits(e, e.n, alpha)
    d, s = difference[:, None], error[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (limits_CN - d) / s, (-limits_CN - d) / s
        size = d * normal(-above) + s * density(above) - d * normal(below) + s * density(below)
        found = (normal(-above) + normal(below)).mean(axis=1)
        times = np.where(found > 0, size.mean(axis=1) / found / difference, np.inf)
    return np.where(error > 0, times, 1.0)


def _limits(e: Estimates, n: NDArray[np.int64], alpha: float) -> tuple[Array, Array]:
    """Standard errors with so many seeds, (C,), and the least significant differences, (C, N)."""
    different, which = np.unique(n, return_inverse=True)
    scales_CN = np.stack([variance_quantiles(int(seeds)) for seeds in different])[which]
    per_seed = e.n * e.seed_variance / n
    from_seeds_CN = per_seed[:, None] * scales_CN
    variances_CN = from_seeds_CN + e.image_variance[:, None]
    shares_CN = np.divide(from_seeds_CN, variances_CN, out=np.ones_like(scales_CN), where=variances_CN > 0)
    critical_CN = _critical(alpha, (n - 1).astype(np.float64), e.units, shares_CN)
    return np.sqrt(per_seed + e.image_variance), critical_CN * np.sqrt(variances_CN)
