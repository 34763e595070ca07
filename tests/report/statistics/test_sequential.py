"""P-values that may be looked at after every seed, and the chance that more seeds decide."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from focal_lab.report.statistics import crossed, sequential
from focal_lab.report.statistics.boundaries import LEVELS, MINIMA
from focal_lab.report.statistics.crossed import Estimate, over_seeds
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.sweep.plan.sequential import DEFAULT_MOST, FIRST_SEEDS, LEAST_MAXIMUM, MOST_SEEDS

STUDIES = 4000


def p_values(most: int, studies: int = STUDIES) -> NDArray[np.float64]:
    """Two-sided p-values of paired t-tests after 3, 4, ... seeds, without an effect."""
    values = np.random.default_rng(7).standard_normal((studies, most))
    looks = range(sequential.FIRST_LOOK, most + 1)
    return np.stack([stats.ttest_1samp(values[:, :n], 0, axis=1).pvalue for n in looks], axis=1)


def of_seeds(looks: int, per_seed: float = 1.0, images: float = 0.0) -> list[Estimate]:
    """Estimates after 3, 4, ... seeds with the same spread."""
    seeds = range(sequential.FIRST_LOOK, sequential.FIRST_LOOK + looks)
    return [Estimate(n, 0.0, per_seed**0.5, per_seed / n, images, 1000 if images else 0) for n in seeds]


def two_sided(study: NDArray[np.float64], most: int) -> float:
    return sequential.two_sided(list(study), of_seeds(len(study)), most)


def test_the_plan_and_the_report_agree_on_the_looks() -> None:
    assert sequential.FIRST_LOOK == LEAST_SEEDS == FIRST_SEEDS
    assert min(MINIMA) == LEAST_MAXIMUM
    assert max(MINIMA) == MOST_SEEDS
    assert DEFAULT_MOST in MINIMA


@pytest.mark.parametrize("most", [4, 10, 20])
def test_without_an_effect_five_percent_of_studies_are_significant_at_some_look(most: int) -> None:
    found = [two_sided(study, most) for study in p_values(most)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.011)  # three standard errors
    assert np.mean(np.array(found) < 0.01) == pytest.approx(0.01, abs=0.005)


def test_uncorrected_looks_are_significant_far_more_often() -> None:
    assert np.mean(p_values(10).min(axis=1) < 0.05) > 0.15


def test_a_p_value_never_rises_with_more_looks() -> None:
    for study in p_values(20, 50):
        found = [two_sided(study[: n + 1], 20) for n in range(len(study))]
        assert all(later <= earlier for earlier, later in pairwise(found))


def test_a_p_value_is_never_below_the_smallest_of_its_looks() -> None:
    for study in p_values(20, 200):
        assert two_sided(study, 20) >= study.min()


@pytest.mark.parametrize("most", [4, 20, 50])
def test_levels_between_the_tabulated_ones_are_in_order(most: int) -> None:
    minima = np.geomspace(1e-9, 1.0, 400)
    first = sequential.weight(3, most)
    levels = [sequential.one_sided([minimum * first], of_seeds(1), most) for minimum in minima]
    assert all(low <= high for low, high in pairwise(levels))
    assert 0 < levels[0] < 1e-6
    assert levels[-1] == 1.0


@pytest.mark.parametrize("images", [0.0, 0.02, 0.2, 50.0])
@pytest.mark.parametrize("alpha", [1e-6, 0.0003, 0.025, 0.07])
def test_the_threshold_of_the_last_look_has_its_level(alpha: float, images: float) -> None:
    share = sequential.image_share(1.0, images, 20)
    last = sequential.threshold(alpha, 20, share)
    p = sequential.one_sided([1.0] * 17 + [last], of_seeds(18, 1.0, images), 20)
    # below the table the bound is used for levels, which is stricter
    assert p == pytest.approx(alpha, rel=1e-6) or alpha < LEVELS[0]
    assert last < alpha


def test_looks_that_are_alike_need_less_correction() -> None:
    thresholds = [sequential.threshold(0.025, 20, share) for share in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert all(low < high for low, high in pairwise(thresholds))
    assert thresholds[-1] == pytest.approx(0.025)  # the last look finds nothing new: one test


@pytest.mark.parametrize("images", [0.0, 0.01, 0.1, 1.0])
def test_with_noise_of_the_test_images_no_more_than_five_percent_are_significant(images: float) -> None:
    rng, most, studies, found = np.random.default_rng(11), 8, 1500, []
    values = rng.standard_normal((studies, most)) + images**0.5 * rng.standard_normal((studies, 1))
    for study in values:
        seeds = [over_seeds(list(study[:n])) for n in range(sequential.FIRST_LOOK, most + 1)]
        looks = [replace(look, image_variance=images, units=1000 if images else 0) for look in seeds]
        found.append(sequential.two_sided([crossed.two_sided(look) for look in looks], looks, most))
    assert 0.025 < np.mean(np.array(found) < 0.05) < 0.067  # three standard errors above 0.05


def test_a_p_value_depends_on_no_later_look() -> None:
    # a share of the test images that grows or falls from look to look changes the later looks only
    p_values, shares = [0.2, 0.004, 0.3, 0.1], [0.5, 0.01, 3.0, 0.2]
    looks = [replace(look, image_variance=share) for look, share in zip(of_seeds(4), shares, strict=True)]
    found = [sequential.two_sided(p_values[:n], looks[:n], 10) for n in range(1, 5)]
    assert found[0] > found[1] == found[2] == found[3] > 0.004
    assert sequential.deciding_look(p_values, looks, 10) == 1


def test_numbers_of_seeds_between_the_tabulated_ones_use_the_stricter_thresholds() -> None:
    assert 23 not in MINIMA
    assert sequential.threshold(0.05, 23) == sequential.threshold(0.05, 25)


@pytest.mark.parametrize("true", [0.0, 0.7, 2.0])
def test_the_chance_is_how_often_the_last_look_decides(true: float) -> None:
    # the mean of predictions before the last seeds is the frequency of what is predicted
    rng, most, chances, decided = np.random.default_rng(3), 8, [], []
    level = 2 * sequential.threshold(0.025, most)
    for _ in range(1500):
        effect = true + 5.0 * rng.standard_normal()  # what is known beforehand is next to nothing
        values = effect + rng.standard_normal(most)
        chances.append(sequential.chance(over_seeds(list(values[:5])), most, differs=(true, 0.05)))
        decided.append(float(stats.ttest_1samp(values, true).pvalue < level))
    assert np.mean(chances) == pytest.approx(np.mean(decided), abs=0.04)


def test_the_chance_of_equivalence_needs_a_margin_wider_than_the_spread() -> None:
    narrow = Estimate(5, 0.0, 1.0, 0.2)
    assert sequential.chance(narrow, 20, inside=(0.1, 0.05)) == 0.0
    assert 0.3 < sequential.chance(narrow, 20, inside=(1.0, 0.05)) < 1.0
    assert sequential.chance(narrow, 20, inside=(9.0, 0.05)) == pytest.approx(1.0, abs=1e-3)
    assert sequential.chance(Estimate(5, 3.0, 1.0, 0.2), 20, outside=(1.0, 0.05)) > 0.9


def test_noise_of_the_test_images_does_not_shrink_with_more_seeds() -> None:
    quiet, noisy = Estimate(5, 1.0, 1.0, 0.2), Estimate(5, 1.0, 1.0, 0.2, 1.0, 1000)
    assert sequential.chance(noisy, 20, differs=(0.0, 0.05)) < 0.1
    assert sequential.chance(quiet, 20, differs=(0.0, 0.05)) > 0.6


def test_fewer_seeds_left_are_worth_a_smaller_chance() -> None:
    assert sequential.futile(0.2, 4, 20)
    assert not sequential.futile(0.2, 16, 20)
    assert not sequential.futile(0.01, 3, 20)  # three seeds know too little of their spread
