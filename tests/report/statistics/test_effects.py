from itertools import product
from random import Random
from statistics import fmean

import pytest

from focal_lab.report.statistics.effects import Contrast, contrasts, full_grid

LEVELS = {"a": ("0", "1", "2"), "b": ("x", "y"), "only": ("o",), "c": ("off", "on")}
ROWS = [dict(zip(LEVELS, labels, strict=True)) for labels in product(*LEVELS.values())]
REFERENCES = {"a": "1", "b": "x", "only": "o", "c": "off"}
NOISE = Random(3)
VALUES = [NOISE.gauss(80, 3) for _ in ROWS]


def value(contrast: Contrast, values: list[float] = VALUES) -> float:
    return sum(weight * values[place] for weight, place in contrast.terms)


def mean_of(**labels: str) -> float:
    """Over all rows with those labels."""
    return fmean(v for v, row in zip(VALUES, ROWS, strict=True) if labels.items() <= row.items())


def found(kind: str, most: int = 100) -> dict[tuple[str, ...], Contrast]:
    of_all = contrasts(ROWS, LEVELS, REFERENCES, most)
    return {tuple(c.levels.values()): c for c in of_all if c.kind == kind}


def test_main_effects_are_differences_of_the_means_of_two_levels() -> None:
    effects = found("main effect")
    assert set(effects) == {("0",), ("2",), ("y",), ("on",)}
    assert value(effects["0",]) == pytest.approx(mean_of(a="0") - mean_of(a="1"))
    assert value(effects["2",]) == pytest.approx(mean_of(a="2") - mean_of(a="1"))
    assert value(effects["on",]) == pytest.approx(mean_of(c="on") - mean_of(c="off"))
    assert effects["2",].references == {"a": "1"}


def test_interactions_are_differences_of_differences() -> None:
    effects = found("interaction")
    assert set(effects) == {("0", "y"), ("2", "y"), ("0", "on"), ("2", "on"), ("y", "on")}
    with_y = mean_of(a="2", b="y") - mean_of(a="1", b="y")
    with_x = mean_of(a="2", b="x") - mean_of(a="1", b="x")
    assert value(effects["2", "y"]) == pytest.approx(with_y - with_x)
    assert effects["2", "y"].references == {"a": "1", "b": "x"}


def test_shares_add_up_to_the_difference_of_the_two_opposite_cells() -> None:
    shares = found("share")
    assert set(shares) == {("2",), ("y",), ("on",)}
    (whole,) = found("whole difference").values()
    assert whole.levels == {"a": "2", "b": "y", "c": "on"}
    assert value(whole) == mean_of(a="2", b="y", c="on") - mean_of(a="1", b="x", c="off")
    assert sum(map(value, shares.values())) == pytest.approx(value(whole), rel=1e-12)


def test_effects_that_add_up_have_no_interaction_and_shares_equal_main_effects() -> None:
    of_levels = {"0": 1.0, "1": 2.0, "2": 4.0, "x": 0.0, "y": -3.0, "off": 0.5, "on": 1.0, "o": 80.0}
    values = [sum(of_levels[label] for label in row.values()) for row in ROWS]
    for contrast in found("interaction").values():
        assert value(contrast, values) == pytest.approx(0, abs=1e-12)
    for kind in ("main effect", "share"):
        effects = found(kind)
        assert value(effects["2",], values) == pytest.approx(2.0)
        assert value(effects["y",], values) == pytest.approx(-3.0)
        assert value(effects["on",], values) == pytest.approx(0.5)


def test_every_contrast_lists_every_row_and_its_weights_add_up_to_nothing() -> None:
    for contrast in contrasts(ROWS, LEVELS, REFERENCES, 100):
        assert [place for _, place in contrast.terms] == list(range(len(ROWS)))
        assert sum(weight for weight, _ in contrast.terms) == pytest.approx(0, abs=1e-12)


def test_too_many_interactions_are_left_out() -> None:
    assert found("interaction", most=4) == {}
    assert len(found("interaction", most=5)) == 5
    assert found("main effect", most=4).keys() == found("main effect").keys()


@pytest.mark.parametrize("broken", [ROWS[:-1], [*ROWS, ROWS[0]], [*ROWS[:-1], ROWS[0]], []])
def test_rows_that_are_not_every_combination_once_are_no_grid(broken: list[dict[str, str]]) -> None:
    assert full_grid(broken) is None


def test_the_levels_of_a_grid_are_in_the_order_of_its_rows() -> None:
    assert full_grid(ROWS) == LEVELS
    assert full_grid([{}]) == {}
