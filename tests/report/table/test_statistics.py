import random

import pytest
from scipy import stats

from focal_lab.report.table.statistics import (
    Sample,
    holm,
    p_value,
    probability_positive,
    sample,
)


def draw(count: int, seed: int, mean: float = 80.0) -> dict[int, float]:
    generator = random.Random(seed)
    return {index: generator.gauss(mean, 2) for index in range(count)}


def paired(a: dict[int, float], b: dict[int, float]) -> Sample:
    return sample([a[seed] - b[seed] for seed in a])


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
    p = p_value(found)
    expected = stats.ttest_rel(list(a.values()), list(b.values()))
    low, high = expected.confidence_interval(0.95)
    assert p == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.mean == pytest.approx((low + high) / 2, rel=1e-10)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-10)


def test_equal_differences_are_certain_and_no_difference_is_none() -> None:
    assert p_value(sample([1.0, 1.0, 1.0])) == 0
    assert p_value(sample([0.0, 0.0])) == 1
    assert p_value(sample([0.5])) is None


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_probability_is_one_minus_the_one_sided_p_value(count: int) -> None:
    values = [value - 79 for value in draw(count, 4).values()]
    expected = 1 - stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert probability_positive(sample(values)) == pytest.approx(expected, rel=1e-10)


def test_a_single_seed_has_no_probability() -> None:
    assert probability_positive(sample([1.0])) is None
    assert probability_positive(sample([])) is None
    assert probability_positive(sample([1.0, 1.0])) == 1
    assert probability_positive(sample([-1.0, -1.0])) == 0


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
            p = p_value(paired({seed: generator.gauss(0, 1) for seed in range(4)}, base))
            assert p is not None
            p_values.append(p)
        alarms += min(holm(p_values)) < 0.05
    assert 0.01 < alarms / 2000 < 0.06
