"""Accuracy within groups of test images counts each image of every process once."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from focal_lab.tasks import groups
from focal_lab.tasks.groups import groups_of, top1_by_group
from focal_lab.tasks.recorded import Recorded


def recorded(label: list[int], prediction: list[int]) -> Recorded:
    """Of images that all count."""
    count = len(label)
    table = {"image": np.arange(count), "label": np.array(label), "prediction": np.array(prediction)}
    return Recorded(np.ones(count, bool), {"": table})


def data(listed: Any) -> Any:
    return SimpleNamespace(test_groups=lambda: ("distance", listed))


def test_counts_of_all_processes_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {("distance", 2): (0, 2), ("distance", 10): (1, 1)}
    monkeypatch.setattr(groups, "gather", lambda trainer, counts: [counts, other])
    monkeypatch.setattr(groups, "find_positions", lambda trainer, recorded: np.array([0, 2, 4]))
    trainer: Any = None
    found = top1_by_group(trainer, recorded([3, 3, 3], [3, 3, 0]), data([1, 1, 2, 1, 1]))
    assert found == {
        "top1_distance_1": 50.0,
        "top1_distance_2": pytest.approx(100 / 3),
        "top1_distance_10": 100.0,
    }
    assert list(found) == ["top1_distance_1", "top1_distance_2", "top1_distance_10"]


def test_data_without_groups_has_no_such_metrics() -> None:
    trainer: Any = None
    assert top1_by_group(trainer, None, object()) == {}
    assert groups_of(object(), np.arange(3)) is None
    assert groups_of(SimpleNamespace(test_groups=lambda: None), np.arange(3)) is None


def test_images_in_an_unknown_order_have_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "gather", lambda trainer, counts: [counts])
    monkeypatch.setattr(groups, "find_positions", lambda trainer, recorded: None)
    trainer: Any = None
    with pytest.warns(
        UserWarning, match="no metrics within groups of images: the loader may give them in any"
    ):
        assert top1_by_group(trainer, recorded([1], [1]), data([1])) == {}


@pytest.mark.parametrize("listed", [[1, 2], [1.5, 2.5, 3.5], [[1], [2], [3]]])
def test_groups_are_an_integer_for_each_test_image(listed: Any) -> None:
    with pytest.raises(
        ValueError, match=r"SimpleNamespace.test_groups\(\) is not one integer for each test image"
    ):
        groups_of(data(listed), np.arange(3))
