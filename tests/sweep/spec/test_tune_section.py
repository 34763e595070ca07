"""The section `tune` of a sweep file."""

import math
from typing import Any

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.spec.tune_section import Tuning, load_tuning

RANGES = {"model.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "drop_path_rate": [0.0, 0.1, 0.2]}


def loaded(**changes: Any) -> Tuning:
    tuning = load_tuning({"trials": 8, "ranges": RANGES} | changes)
    assert tuning is not None
    return tuning


def test_each_seed_has_its_own_settings_and_always_the_same() -> None:
    assert len(loaded().draws(0)) == 8
    assert loaded().draws(0) == loaded().draws(0)
    assert loaded().draws(0) != loaded().draws(1)
    assert loaded(seed=1).draws(0) != loaded().draws(0)


def test_more_trials_begin_with_the_same_settings() -> None:
    assert loaded(trials=12).draws(3)[:8] == loaded().draws(3)


def test_a_logarithmic_range_is_drawn_evenly_on_its_scale() -> None:
    drawn = [math.log10(one["model.lr"]) for seed in range(100) for one in loaded().draws(seed)]
    assert -4 <= min(drawn) < -3.9
    assert -2.1 < max(drawn) <= -2
    assert sum(drawn) / len(drawn) == pytest.approx(-3, abs=0.07)


def test_steps_and_whole_numbers_are_kept() -> None:
    ranges = {
        "drop_path_rate": {"low": 0.0, "high": 0.3, "step": 0.1},
        "warmup": {"low": 1, "high": 3},
        "many": {"low": 1, "high": 1000, "log": True},
    }
    drawn = [one for seed in range(40) for one in loaded(ranges=ranges).draws(seed)]
    assert {one["drop_path_rate"] for one in drawn} == {0.0, 0.1, 0.2, 0.3}
    assert {one["warmup"] for one in drawn} == {1, 2, 3}
    assert all(type(one["many"]) is int and 1 <= one["many"] <= 1000 for one in drawn)


def test_no_setting_is_tried_twice_by_a_seed() -> None:
    tuning = loaded(trials=6, ranges={"a": [1, 2, 3], "b": [True, False]})
    drawn = tuning.draws(0)
    assert len(drawn) == 6
    assert all(drawn.count(one) == 1 for one in drawn)


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ({"trials": 1, "ranges": RANGES}, "tune.trials", "use 2 or more"),
        ({"trials": True, "ranges": RANGES}, "tune.trials", "True"),
        ({"ranges": RANGES}, "tune.trials", "None"),
        ({"trials": 4}, "tune", "names no setting"),
        ({"trials": 7, "ranges": {"a": [1, 2, 3], "b": [1, 2]}}, "tune.trials", "6 combinations"),
        ({"trials": 2, "ranges": {"a": [1]}}, "tune.ranges.a", "list of different values"),
        ({"trials": 2, "ranges": {"a": [1, 1]}}, "tune.ranges.a", "list of different values"),
        ({"trials": 2, "ranges": {"a": 3}}, "tune.ranges.a", "list of different values"),
        ({"trials": 2, "ranges": {"a": {"low": 2, "high": 1}}}, "tune.ranges.a", "not below"),
        ({"trials": 2, "ranges": {"a": {"low": 0, "high": 1, "log": True}}}, "tune.ranges.a", "logarithm"),
        ({"trials": 2, "ranges": {"a": {"low": 0, "hihg": 1}}}, "tune.ranges.a", "hihg"),
        ({"trails": 2, "ranges": RANGES}, "tune", "trails"),
        ([1], "tune", "mapping"),
    ],
)
def test_a_wrong_section_is_named(section: Any, key: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_tuning(section)
    assert said in raised.value.message
    assert str(raised.value.key).startswith(key)
