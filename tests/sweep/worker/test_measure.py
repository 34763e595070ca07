"""A measurement's shortened training."""

from typing import Any

import pytest

from focal_lab.sweep.worker.measure_steps import Clock, count_batches, count_validations, shortened


def test_a_measurement_validates_and_tests_a_few_batches_in_one_process() -> None:
    given = {"max_epochs": 300, "devices": 8, "strategy": "ddp", "val_check_interval": 0.1, "precision": 16}
    changed = shortened(given)
    assert (changed["devices"], changed["strategy"]) == (1, "auto")
    assert (changed["limit_val_batches"], changed["limit_test_batches"]) == (4, 3)
    assert (changed["max_epochs"], changed["precision"]) == (300, 16)
    assert "val_check_interval" not in changed


@pytest.mark.parametrize(("limit", "few"), [(1, 1), (100, 4), (0, 0), (0.0, 0), (0.5, 4), (None, 4)])
def test_limits_of_the_configuration_stay(limit: Any, few: int) -> None:
    assert shortened({"limit_val_batches": limit})["limit_val_batches"] == few


def test_a_short_training_is_not_over_before_it_is_measured() -> None:
    assert shortened({"max_steps": 3})["max_steps"] == 1000
    assert "max_steps" not in shortened({"max_epochs": 1})


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({}, 1.0),
        ({"check_val_every_n_epoch": 5}, 0.2),
        ({"val_check_interval": 0.25}, 4.0),
        ({"val_check_interval": 50}, 2.0),
        ({"val_check_interval": 50, "check_val_every_n_epoch": None}, 2.0),
    ],
)
def test_validations_are_counted_as_lightning_does(trainer: dict[str, Any], count: float) -> None:
    assert count_validations(trainer, 100.0) == count


def test_batches_are_those_of_all_loaders_under_the_limit() -> None:
    assert count_batches([1, 2, 3], 1.0) == 0.0  # no loaders
    assert count_batches(["ab", "abcd"], 1.0) == 6
    assert count_batches("abcd", 0.5) == 2
    assert count_batches("abcd", 3) == 3
    assert count_batches(None, 1.0) == 0
    assert count_batches(iter("abc"), 1.0) == 0


def test_the_first_steps_are_no_measure_of_the_others() -> None:
    clock = Clock()
    clock.first, clock.steps = 10.0, [15.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0]
    assert clock.batch == 1.0
    assert clock.slow_start == 4.0
    clock.steps, clock.stepped = [15.0], 15.0
    assert (clock.batch, clock.slow_start) == (5.0, 0.0)
