"""Statistics over seeds: t-intervals, paired t-tests, Holm's correction, one-sided probabilities.

All of them assume, as a t-test does, that differences between seeds are roughly normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf, sqrt
from typing import Literal

ALPHA = 0.05
# With two differences the 95 % interval is 12.7 standard errors wide on either side: too wide for a verdict.
LEAST_SEEDS = 3
Verdict = Literal[
    "better", "worse", "within noise", "too few seeds", "other data", "other test set", "same runs"
]


@dataclass(frozen=True)
class Sample:
    """Mean (None for an empty sample), and for two values or more the spread.

    Attributes:
        sd: sample standard deviation, divided by n - 1.
        half_width: half of the 95 % t-interval of the mean.
    """

    n: int
    mean: float | None
    sd: float | None
    half_width: float | None


def sample(values: Sequence[float]) -> Sample:
    """Mean, spread and 95 % interval of the values."""
    n = len(values)
    mean = fsum(values) / n if n else None
    if mean is None or n == 1:
        return Sample(n, mean, None, None)
    sd = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1))
    # scipy takes a third of a second to import
    from scipy.special import stdtrit

    return Sample(n, mean, sd, float(stdtrit(n - 1, 1 - ALPHA / 2)) * sd / sqrt(n))


def p_value(found: Sample) -> float | None:
    """Two-sided p-value of the t-test of mean zero; None for fewer than two values."""
    return None if found.sd is None else 2 * _t_below(-abs(_t(found)), found.n - 1)


def probability_positive(found: Sample) -> float | None:
    """Probability that the mean of the population is above zero; None for fewer than two values.

    Student's posterior under the usual flat prior of mean and log spread: one minus the one-sided p-value.
    """
    return None if found.sd is None else _t_below(_t(found), found.n - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of p-values for their number; it bounds the chance of any false positive."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _t_below(value: float, freedom: int) -> float:
    """Student's t distribution function."""
    from scipy.special import stdtr

    return float(stdtr(freedom, value))


def _t(found: Sample) -> float:
    """The mean in standard errors: infinite for values that are all equal, unless they are 0."""
    assert found.mean is not None
    assert found.sd is not None
    if found.sd == 0:
        return 0.0 if found.mean == 0 else inf if found.mean > 0 else -inf
    return found.mean / (found.sd / sqrt(found.n))
