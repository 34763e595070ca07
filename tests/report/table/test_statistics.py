import random

import pytest
from scipy import stats

from focal_lab.report.table.statistics import (
    Paired,
    holm,
    paired,
    probability_positive,
    sample,
    t_below,
    t_quantile,
)


def draw(count: int, seed: int, mean: float = 80.0) -> dict[int, float]:
    generator = random.Random(seed)
    return {index: generator.gauss(mean, 2) for index in range(count)}


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_mean_spread_and_interval_equal_scipys(count: int) -> None:
    values = list(draw(count, 1).values())
    found = sample(values)
    low, high = stats.t.interval(0.95, count - 1, loc=found.mean, scale=stats.sem(values))
    assert found.mean == pytest.approx(stats.tmean(values), rel=1e-12)
    assert found.sd == pytest.approx(stats.tstd(values), rel=1e-12)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 40])
@pytest.mark.parametrize("shift", [0.0, 0.7, -3.0])
def test_paired_comparisons_equal_scipys(count: int, shift: float) -> None:
    a, b = draw(count, 2, 80 + shift), draw(count, 3)
    found = paired(a, b)
    expected = stats.ttest_rel(list(a.values()), list(b.values()))
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.difference == pytest.approx((low + high) / 2, rel=1e-10)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-10)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = paired({0: 3.0, 1: 5.0, 7: 100.0}, {1: 4.0, 0: 1.0, 8: -100.0})
    assert (found.n, found.difference) == (2, 1.5)
    assert paired({0: 1.0}, {1: 1.0}) == Paired(0, None, None, None)
    assert paired({0: 1.0}, {0: 0.5}) == Paired(1, 0.5, None, None)


def test_equal_differences_are_certain_and_no_difference_is_none() -> None:
    assert paired({0: 2.0, 1: 3.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 3.0}).p == 0
    assert paired({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0}).p == 1


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_probability_is_one_minus_the_one_sided_p_value(count: int) -> None:
    values = [value - 79 for value in draw(count, 4).values()]
    expected = 1 - stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert probability_positive(values) == pytest.approx(expected, rel=1e-10)


def test_a_single_seed_has_no_probability() -> None:
    assert probability_positive([1.0]) is None
    assert probability_positive([]) is None
    assert probability_positive([1.0, 1.0]) == 1
    assert probability_positive([-1.0, -1.0]) == 0


def test_holms_correction_is_that_of_the_textbook() -> None:
    # Holm 1979: the smallest times m, the next times m - 1, ..., never falling, never above one
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.6]) == [1.0, 1.0, 1.0]
    assert holm([]) == []


def test_holms_correction_keeps_false_alarms_rare() -> None:
    """Of 2,000 tables of five rows without any effect, about one in twenty has a verdict at all."""
    generator = random.Random(5)
    alarms = 0
    for _ in range(2000):
        p_values = []
        base = {seed: generator.gauss(0, 1) for seed in range(4)}
        for _row in range(5):
            p = paired({seed: generator.gauss(0, 1) for seed in range(4)}, base).p
            assert p is not None
            p_values.append(p)
        alarms += min(holm(p_values)) < 0.05
    assert 0.01 < alarms / 2000 < 0.06


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
def test_the_t_distribution_is_scipys(freedom: int) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
    assert t_below(-1.3, freedom) == pytest.approx(stats.t.cdf(-1.3, freedom), rel=1e-12)
    assert (t_below(float("inf"), freedom), t_below(float("-inf"), freedom)) == (1, 0)
