import numpy as np
import pytest
from scipy import stats

from focal_lab.report.statistics.crossed import (
    Estimate,
    beyond,
    critical_value,
    equivalence,
    image_variance,
    over_seeds,
    two_sided,
)

VALUES = [1.2, 0.7, 2.1, 1.6, 0.4]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_seeds_alone_equal_scipys_t_test_and_interval(count: int) -> None:
    values = VALUES[:count]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(stats.tstd(values))
    assert found.half_width == pytest.approx((high - low) / 2)
    for value in (0.0, 1.0, -2.5):
        assert two_sided(found, value) == pytest.approx(stats.ttest_1samp(values, value).pvalue)


def test_equivalence_is_the_larger_of_two_one_sided_tests_of_scipy() -> None:
    for margin in (0.5, 1.5, 3.0):
        for values in (VALUES, [-value for value in VALUES]):
            lower = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
            upper = stats.ttest_1samp(values, margin, alternative="less").pvalue
            assert equivalence(over_seeds(values), margin) == pytest.approx(max(lower, upper))


def test_equivalence_equals_statsmodels() -> None:
    # statsmodels: ttost_paired(np.array(VALUES), np.zeros(5), -m, m)[0] for m = 1.5 and 2
    found = over_seeds(VALUES)
    expected = [0.1904696052385942, 0.02929800324106824]
    assert [equivalence(found, m) for m in (1.5, 2.0)] == pytest.approx(expected)


def test_differences_beyond_a_margin_count_both_tails() -> None:
    found = over_seeds(VALUES)
    t = stats.t(4)
    error = stats.sem(VALUES)
    assert beyond(found, 0.0) == pytest.approx(two_sided(found))
    assert beyond(found, 0.5) == pytest.approx(t.sf((1.2 - 0.5) / error) + t.sf((1.2 + 0.5) / error))
    assert beyond(found, 1.3) == 1.0


def test_nothing_is_known_without_spread_or_with_one_seed() -> None:
    for values in ([], [3.5], [1.0, 1.0, 1.0], [84.1 - 80.1, 85.3 - 81.3, 4.0]):
        found = over_seeds(values)
        assert (two_sided(found), beyond(found, 0.1)) == (1.0, 1.0)
        assert found.without_spread == (len(values) > 1)
    assert over_seeds([]).mean is None
    assert over_seeds([3.5]).half_width is None


def plain_anova(values_SU: np.ndarray) -> float:
    """(MS_units - MS_rest) / (S U) of a two-way analysis of variance, written with loops."""
    seeds, units = values_SU.shape
    grand = values_SU.mean()
    of_units = sum(seeds * (values_SU[:, u].mean() - grand) ** 2 for u in range(units)) / (units - 1)
    rest = 0.0
    for s in range(seeds):
        for u in range(units):
            rest += (values_SU[s, u] - values_SU[s].mean() - values_SU[:, u].mean() + grand) ** 2
    rest /= (seeds - 1) * (units - 1)
    return max(0.0, of_units - rest) / (seeds * units)


@pytest.mark.parametrize(("seeds", "units"), [(2, 5), (3, 40), (12, 7)])
def test_the_variance_from_images_is_that_of_a_two_way_analysis(seeds: int, units: int) -> None:
    draw = np.random.default_rng(seeds)
    values_SU = draw.normal(size=(seeds, units)) + 2 * draw.normal(size=units) + draw.normal(size=(seeds, 1))
    assert image_variance(values_SU, np.ones(units)) == pytest.approx(plain_anova(values_SU))
    assert image_variance(values_SU - 50, np.ones(units)) == pytest.approx(plain_anova(values_SU))


def test_the_variance_from_sources_of_unequal_size_is_that_of_a_jackknife_over_sources() -> None:
    draw = np.random.default_rng(4)
    sizes = draw.integers(1, 9, 300)
    effects = draw.normal(0, 3, 300)
    sums_SU = np.stack([60 + effects for _ in range(4)]) * sizes + draw.normal(0, 0.1, (4, 300))
    means_U = sums_SU.mean(axis=0)
    whole = means_U.sum() / sizes.sum()
    leave = (means_U.sum() - means_U) / (sizes.sum() - sizes)
    jackknife = 299 / 300 * ((leave - whole) ** 2).sum()
    scale = 300 / sizes.sum()
    assert image_variance(sums_SU * scale, sizes * scale) == pytest.approx(jackknife, rel=0.03)


def test_one_seed_or_one_unit_has_no_variance_from_images() -> None:
    assert image_variance(np.ones((1, 5)), np.ones(5)) == 0
    assert image_variance(np.ones((5, 1)), np.ones(1)) == 0


def crossed(n: int, units: int, share: float) -> Estimate:
    return Estimate(n, 1.0, 1.0, share, 1 - share, units)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01, 1e-3, 1e-5])
@pytest.mark.parametrize(("n", "units"), [(3, 500), (5, 2000), (10, 30), (40, 12)])
def test_p_values_are_the_inverse_of_critical_values(alpha: float, n: int, units: int) -> None:
    for share in (1.0, 0.9, 0.5, 0.1, 0.01):
        found = crossed(n, units, share)
        distance = critical_value(alpha, found)
        assert two_sided(found, 1.0 + distance) == pytest.approx(alpha, rel=1e-5)


def test_critical_values_lie_between_those_of_either_part_alone() -> None:
    few, many = stats.t.ppf(0.975, 2), stats.t.ppf(0.975, 499)
    values = [critical_value(0.05, crossed(3, 500, share)) for share in (0.001, 0.2, 0.5, 0.8, 1.0)]
    assert values == sorted(values)
    assert many < values[0]
    assert values[-1] == pytest.approx(few)


@pytest.mark.parametrize(("alpha", "most"), [(0.05, 0.054), (0.005, 0.0054)])
@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.2])
def test_three_seeds_hold_the_level_where_satterthwaite_would_not(
    alpha: float, most: float, share: float
) -> None:
    """400,000 studies; the Monte Carlo error is 0.0003 at 0.05 and 0.0001 at 0.005 (one standard error)."""
    draw = np.random.default_rng(int(share * 10))
    of_seeds = share * draw.chisquare(2, 400_000) / 2
    t = np.abs(draw.normal(size=400_000))
    variance = of_seeds + 1 - share
    shares = of_seeds / variance
    grid = np.linspace(0, 1, 2001)
    critical = np.array([critical_value(alpha, Estimate(3, 0.0, 1.0, w, 1 - w, 10**6)) for w in grid])
    found = t > np.interp(shares, grid, critical) * np.sqrt(variance)
    assert found.mean() < most + 3 * np.sqrt(alpha / 400_000)
    if alpha == 0.005 and share == 0.8:
        freedom = variance**2 / (of_seeds**2 / 2)
        wrong = t > stats.t.ppf(1 - alpha / 2, freedom) * np.sqrt(variance)
        assert wrong.mean() > 2 * alpha
