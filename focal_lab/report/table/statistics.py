"""What seeds say: intervals, paired t-tests, Holm's correction, the probability that a contrast is positive.

All of it assumes what a t-test assumes: differences between seeds are about normal. scipy has the
distribution; importing it takes a third of a second, so that happens where there is something to compute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf, sqrt
from typing import Literal

ALPHA = 0.05
# Two differences are at best 12.7 standard errors from anything: no verdict is made of them.
LEAST_SEEDS = 3
Verdict = Literal[
    "better", "worse", "within noise", "too few seeds", "other data", "other test set", "same runs"
]


@dataclass(frozen=True)
class Sample:
    """Mean and spread of some numbers.

    Attributes:
        mean: None without numbers.
        sd: sample standard deviation (divided by n - 1); None for fewer than two.
        half_width: of the 95 % t-interval of the mean; None for fewer than two.
    """

    n: int
    mean: float | None
    sd: float | None
    half_width: float | None


@dataclass(frozen=True)
class Paired:
    """A paired comparison, a minus b.

    Attributes:
        n: seeds that both have.
        difference: mean over them; None without any.
        half_width: of its 95 % t-interval; None for fewer than two.
        p: two-sided, of the paired t-test; None for fewer than two.
    """

    n: int
    difference: float | None
    half_width: float | None
    p: float | None


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (divided by n - 1); None where there are too few values."""
    if not values:
        return None, None
    mean = fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def sample(values: Sequence[float]) -> Sample:
    """Mean, spread and 95 % interval."""
    mean, sd = mean_and_sd(values)
    half_width = None
    if sd is not None:
        half_width = t_quantile(1 - ALPHA / 2, len(values) - 1) * sd / sqrt(len(values))
    return Sample(len(values), mean, sd, half_width)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """Compare two cells by the seeds that both have: seed -> value."""
    found = sample([a[seed] - b[seed] for seed in a if seed in b])
    if found.mean is None or found.sd is None:
        return Paired(found.n, found.mean, None, None)
    return Paired(found.n, found.mean, found.half_width, 2 * t_below(-abs(_t(found)), found.n - 1))


def probability_positive(values: Sequence[float]) -> float | None:
    """How probable it is, given these numbers, that the mean of all such numbers is above zero.

    Student's posterior under the usual flat prior of mean and logarithm of the spread: one minus the
    one-sided p-value. None for fewer than two numbers.
    """
    found = sample(values)
    if found.sd is None:
        return None
    return t_below(_t(found), found.n - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance of a single false alarm stays at alpha."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def t_below(value: float, freedom: int) -> float:
    """Student's t distribution function."""
    from scipy.special import stdtr

    if value in (inf, -inf):
        return float(value > 0)
    return float(stdtr(freedom, value))


def _t(found: Sample) -> float:
    """Standard errors from zero; numbers that are all equal are infinitely many away, unless they are 0."""
    assert found.mean is not None
    assert found.sd is not None
    if found.sd == 0:
        return 0.0 if found.mean == 0 else inf if found.mean > 0 else -inf
    return found.mean / (found.sd / sqrt(found.n))
