"""Variance components of crossed designs: against published figures, formulas written out, and simulation."""

from itertools import product

import numpy as np
import pytest

from focal_lab.report.statistics.variance import RESIDUAL, Component, Decomposition, variance_components

Values = list[tuple[dict[str, str], float]]

# Zones of inhibition in mm of six samples of penicillin (columns) on 24 plates (rows): Davies and Goldsmith
# 1972, Statistical Methods in Research and Production, 4th ed.; the data set Penicillin of R's lme4.
PENICILLIN = """
27 23 26 23 23 21  27 23 26 23 23 21  25 21 25 24 24 20  26 23 25 23 23 20
25 22 26 22 23 20  24 22 25 23 22 19  24 20 23 21 22 19  26 22 26 24 24 21
24 21 24 22 22 20  24 21 24 23 22 19  26 23 26 24 24 21  25 22 26 24 24 20
26 24 26 24 25 22  26 23 26 23 23 20  26 23 25 24 24 22  25 22 25 23 23 20
25 21 24 23 23 20  25 22 24 23 23 19  24 21 23 21 21 19  26 23 26 24 24 21
25 21 24 22 22 18  25 22 25 22 22 20  24 21 24 22 24 19  24 21 24 22 21 18
"""


def crossed(table: np.ndarray, names: str = "abc") -> Values:
    """Values of an array with an axis for each factor."""
    return [
        ({name: str(i) for name, i in zip(names, place, strict=False)}, float(table[place]))
        for place in product(*map(range, table.shape))
    ]


def simulated(
    rng: np.random.Generator, shape: tuple[int, ...], sds: tuple[float, ...], residual: float
) -> np.ndarray:
    table = rng.normal(80, residual, shape)
    for axis, sd in enumerate(sds):
        sizes = [size if i == axis else 1 for i, size in enumerate(shape)]
        table = table + rng.normal(0, sd, sizes)
    return table


def by_effect(found: Decomposition) -> dict[tuple[str, ...], Component]:
    return {component.effect: component for component in found.components}


def test_components_are_those_that_lme4_publishes_for_penicillin() -> None:
    table = np.array(PENICILLIN.split(), float).reshape(24, 6)
    found = variance_components(crossed(table, "ps"))
    # Bates et al. 2015, lme4's documentation: sd of plates, samples and residual by REML, and the intercept
    sds = {component.effect: round(component.sd, 4) for component in found.components}
    assert sds == {("p",): 0.8467, ("s",): 1.9316, RESIDUAL: 0.5499}
    assert round(found.mean, 4) == 22.9722
    assert [component.freedom for component in found.components] == [23, 5, 115]
    # profile likelihood there: 0.634 to 1.182, 1.096 to 3.556, 0.486 to 0.630
    limits = [(component.low**0.5, component.high**0.5) for component in found.components]
    assert np.allclose(limits, [(0.64, 1.20), (1.20, 4.75), (0.49, 0.63)], atol=0.04)


def test_two_factors_agree_with_the_formulas_of_the_textbook() -> None:
    table = np.random.default_rng(3).normal(80, 2, (4, 3))
    found = by_effect(variance_components(crossed(table)))
    rows, columns, grand = table.mean(1), table.mean(0), table.mean()
    residual = sum(
        (table[i, j] - rows[i] - columns[j] + grand) ** 2 for i, j in product(range(4), range(3))
    ) / (3 * 2)
    for name, mean_square, repeats in (
        ("a", 3 * sum((rows - grand) ** 2) / 3, 3),
        ("b", 4 * sum((columns - grand) ** 2) / 2, 4),
    ):
        estimate = (mean_square - residual) / repeats
        assert found[(name,)].variance == pytest.approx(max(0, estimate))
        assert found[(name,)].negative == (estimate < 0)
    assert found[RESIDUAL].variance == pytest.approx(residual)


def test_interactions_are_separated_by_expected_mean_squares() -> None:
    table = np.random.default_rng(4).normal(80, 2, (3, 4, 2))
    found = by_effect(variance_components(crossed(table), interactions=True))
    assert list(found) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), RESIDUAL]
    mean = {axes: table.mean(axis=axes, keepdims=True) for axes in ((0,), (1,), (2,), (1, 2), (0, 2), (0, 1))}
    grand = table.mean()
    pair = 2 * ((mean[(2,)] - mean[(1, 2)] - mean[(0, 2)] + grand) ** 2).sum() / (2 * 3)
    other = 4 * ((mean[(1,)] - mean[(1, 2)] - mean[(0, 1)] + grand) ** 2).sum() / (2 * 1)
    main = 8 * ((mean[(1, 2)] - grand) ** 2).sum() / 2
    whole = table - mean[(0,)] - mean[(1,)] - mean[(2,)] + mean[(1, 2)] + mean[(0, 2)] + mean[(0, 1)] - grand
    residual = (whole**2).sum() / (2 * 3 * 1)
    assert found[RESIDUAL].variance == pytest.approx(residual)
    assert found[RESIDUAL].freedom == 6
    assert found[("a", "b")].variance == pytest.approx(max(0, (pair - residual) / 2))
    assert found[("a",)].variance == pytest.approx(max(0, (main - pair - other + residual) / 8))


@pytest.mark.parametrize("sds", [(1.0, 0.5, 0.0), (0.3, 0.3, 0.3)])
def test_estimates_are_right_on_average_and_intervals_hold_in_simulated_studies(
    sds: tuple[float, ...],
) -> None:
    rng, studies, names = np.random.default_rng(0), 400, [("a",), ("b",), ("c",), RESIDUAL]
    truth = dict(zip(names, [*(sd**2 for sd in sds), 0.16], strict=True))
    covered, shares, estimates = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for _ in range(studies):
        found = by_effect(variance_components(crossed(simulated(rng, (3, 3, 3), sds, 0.4))))
        for name, true in truth.items():
            one, share = found[name], true / sum(truth.values())
            covered[name] += one.low <= true <= one.high
            assert one.share_low is not None
            assert one.share_high is not None
            shares[name] += one.share_low <= share <= one.share_high
            estimates[name] += one.variance / studies
    for name in names:
        assert 0.93 <= covered[name] / studies <= 1, name
        assert 0.93 <= shares[name] / studies <= 1, name
        # negative estimates are set to 0, which raises the mean a little
        assert estimates[name] == pytest.approx(truth[name], rel=0.2, abs=0.02), name


def test_a_negative_estimate_is_zero_and_marked() -> None:
    table = np.array([[1.0, 0.0], [0.1, 1.0]])  # the means of rows are closer than chance makes them
    found = by_effect(variance_components(crossed(table)))
    assert (found[("a",)].variance, found[("a",)].negative, found[("a",)].low) == (0, True, 0)
    assert found[("a",)].high > 0
    assert found[RESIDUAL].share == 1


def test_values_that_are_exactly_additive_leave_nothing_and_equal_ones_have_no_shares() -> None:
    additive = np.add.outer([0.0, 1.0, 5.0], [0.1, 0.7])
    found = variance_components(crossed(additive))
    assert by_effect(found)[RESIDUAL].variance == 0
    assert not any(component.negative for component in found.components)
    assert sum(component.share or 0 for component in found.components) == pytest.approx(1)
    equal = variance_components(crossed(np.full((3, 3), 81.4)))
    assert (equal.total, equal.mean) == (0, pytest.approx(81.4))
    assert all((one.variance, one.share, one.high) == (0, None, 0) for one in equal.components)


def test_the_order_of_the_values_does_not_matter_and_calls_agree() -> None:
    values = crossed(np.random.default_rng(5).normal(80, 1, (3, 3, 3)))
    again = variance_components(values)
    assert variance_components(values) == again
    turned = variance_components(values[::-1])
    for one, other in zip(again.components, turned.components, strict=True):
        assert (one.effect, one.freedom) == (other.effect, other.freedom)
        assert (one.variance, one.high) == pytest.approx((other.variance, other.high))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "0 factors are too few"),
        ([({"a": "0"}, 1.0), ({"a": "1"}, 2.0)], "1 factors are too few to separate one from the residual"),
        (crossed(np.ones((3, 1))), "b has one level, 0; a variance needs two"),
        (crossed(np.ones((2, 2)))[:3], "1 of 4 combinations are missing, such as a 1, b 1"),
        (crossed(np.ones((2, 2))) * 2, "a 0, b 0 occurs twice"),
        ([*crossed(np.ones((2, 2))), ({"a": "0"}, 1.0)], "not all values have the factors a, b"),
        (crossed(np.array([[1.0, np.nan], [1.0, 1.0]])), "a 0, b 1: nan is not a number to decompose"),
    ],
)
def test_what_is_no_crossed_design_is_refused(values: Values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variance_components(values)
