from math import sqrt

import numpy as np
import pytest
from scipy import stats

from focal_lab.report.statistics.power import (
    Spread,
    detectable,
    exaggeration,
    power,
    seeds_needed,
)


def noncentral(difference: float, sd: float, seeds: int, alpha: float) -> float:
    """Power of the right sign by the noncentral t-distribution, as statsmodels' TTestPower has it."""
    critical = stats.t.ppf(1 - alpha / 2, seeds - 1)
    return float(stats.nct.sf(critical, seeds - 1, difference * sqrt(seeds) / sd))


@pytest.mark.parametrize("seeds", [3, 5, 10, 30])
@pytest.mark.parametrize("difference", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_of_seeds_alone_is_that_of_the_noncentral_t(
    seeds: int, difference: float, alpha: float
) -> None:
    found = power(difference, Spread(0.49, 0.0, 0), seeds, alpha)
    assert found == pytest.approx(noncentral(difference, 0.7, seeds, alpha), abs=0.01)


@pytest.mark.parametrize(
    ("seeds", "difference", "expected"),
    [(3, 1.0, 0.2951446553682323), (10, 0.5, 0.5223539490134166), (30, 0.3, 0.6214284073281643)],
)
def test_power_equals_statsmodels(seeds: int, difference: float, expected: float) -> None:
    # statsmodels: TTestPower().power(difference / 0.7, seeds, 0.05); it counts the wrong sign, too
    assert power(difference, Spread(0.49, 0.0, 0), seeds, 0.05) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("spread", [Spread(0.5, 0.0, 0), Spread(0.5, 0.3, 500), Spread(0.0, 0.3, 500)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_what_is_detectable_is_found_with_the_wanted_probability(spread: Spread, alpha: float) -> None:
    for seeds in (2, 3, 5, 20):
        for wanted in (0.5, 0.8, 0.95):
            difference = detectable(spread, seeds, alpha, wanted)
            assert power(difference, spread, seeds, alpha) == pytest.approx(wanted, abs=1e-3)


def test_the_seeds_needed_are_the_fewest_that_suffice() -> None:
    for spread in (Spread(0.5, 0.0, 0), Spread(2.0, 0.002, 500), Spread(8.0, 0.0, 0)):
        seeds = seeds_needed(0.5, spread, 0.01)
        assert seeds is not None
        assert power(0.5, spread, seeds, 0.01) >= 0.8
        assert seeds == 3 or power(0.5, spread, seeds - 1, 0.01) < 0.8


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-5])
@pytest.mark.parametrize("spread", [Spread(v, i, 500) for v in (0.001, 0.1, 2.0, 40.0) for i in (0.0, 0.004)])
def test_the_search_for_the_seeds_needed_finds_the_first_that_suffices(spread: Spread, alpha: float) -> None:
    for difference in (0.05, 0.2, 0.5, 3.0):
        sufficing = (n for n in range(3, 1001) if power(difference, spread, n, alpha) >= 0.8)
        assert seeds_needed(difference, spread, alpha) == next(sufficing, None)


def test_too_few_test_images_are_not_mended_by_seeds() -> None:
    assert seeds_needed(0.5, Spread(0.5, 0.2, 500), 0.05) is None
    assert seeds_needed(0.01, Spread(0.5, 0.0, 0), 0.05) is None


def test_no_noise_detects_everything() -> None:
    assert detectable(Spread(0.0, 0.0, 0), 3, 0.05) == 0
    assert exaggeration(0.5, Spread(0.0, 0.0, 0), 3, 0.05) == 1


@pytest.mark.parametrize("difference", [0.3, 1.0, 4.0])
def test_exaggeration_is_that_of_simulated_studies(difference: float) -> None:
    draw = np.random.default_rng(1)
    values = difference + draw.normal(0, 1, (400_000, 5))
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / sqrt(5)
    significant = np.abs(mean) > stats.t.ppf(0.975, 4) * error
    expected = np.abs(mean[significant]).mean() / difference
    assert exaggeration(difference, Spread(1.0, 0.0, 0), 5, 0.05) == pytest.approx(expected, rel=0.03)
