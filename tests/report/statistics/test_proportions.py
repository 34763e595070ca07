"""Intervals of the share of seeds that succeed."""

import pytest
from scipy.stats import binomtest

from focal_lab.report.statistics.proportions import wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 5), (3, 5), (5, 5), (97, 100)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_interval_is_wilsons(successes: int, trials: int, alpha: float) -> None:
    expected = binomtest(successes, trials).proportion_ci(1 - alpha, method="wilson")
    assert wilson(successes, trials, alpha) == pytest.approx((expected.low, expected.high), abs=1e-12)
