"""A run's metrics image by image, as a report reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import focal_lab
from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import PREDICTIONS_FILE
from focal_lab.sweep.run_folder.predictions import read_units
from focal_lab.sweep.run_folder.result import CorruptRecordError
from focal_lab.training.predictions_file import write_predictions

LABELS = np.array([3, 1, 2, 2])


def classified(**changed: Any) -> dict[str, NDArray[Any]]:
    arrays = {
        "label": LABELS,
        "prediction": np.array([3, 1, 0, 2]),
        "cluster": np.array([70000, 4, 4, 0]),
        "top5": np.array([True, True, True, False]),
        "loss": np.array([0.5, 0.25, 2, 1], np.float32),
        "confidence": np.array([0.5, 0.75, 0.25, 1], np.float16),
        "ema_prediction": np.array([0, 1, 0, 0]),
        "ema_loss": np.full(4, 3, np.float32),
    }
    return {name: values for name, values in (arrays | changed).items() if values is not None}


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("top1", [100, 100, 0, 100]),
        ("top5", [100, 100, 100, 0]),
        ("loss", [0.5, 0.25, 2, 1]),
        ("ema_top1", [0, 100, 0, 0]),
        ("ema_loss", [3, 3, 3, 3]),
    ],
)
def test_a_classifier_has_a_value_for_each_image(tmp_path: Path, metric: str, values: list[float]) -> None:
    write_predictions(tmp_path, classified())
    units = read_units(tmp_path, metric, float(np.mean(values)))
    assert units is not None
    assert units.values.dtype == np.float32
    assert units.values.tolist() == values
    assert units.clusters is not None
    assert units.clusters.dtype == np.int32
    assert units.clusters.tolist() == [70000, 4, 4, 0]


def test_images_without_sources_have_no_clusters(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified(cluster=None))
    units = read_units(tmp_path, "top1")
    assert units is not None
    assert units.clusters is None


def test_stored_units_come_with_their_own_clusters(tmp_path: Path) -> None:
    arrays = {"unit_ap_box": np.array([1, 1, 5], np.float32), "unit_cluster": np.array([0, 0, 1])}
    write_predictions(tmp_path, arrays)
    units = read_units(tmp_path, "ap_box", 7 / 3)
    assert units is not None
    assert units.values.tolist() == [1, 1, 5]
    assert units.clusters is not None
    assert units.clusters.tolist() == [0, 0, 1]


def test_units_do_not_hold_the_file_in_memory(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified())
    for metric in ("top1", "loss"):
        units = read_units(tmp_path, metric)
        assert units is not None
        assert units.values.base is None
        assert units.clusters is not None
        assert units.clusters.base is None


def test_an_old_run_and_a_metric_that_is_not_kept_have_none(tmp_path: Path) -> None:
    assert read_units(tmp_path, "top1") is None
    assert read_units(tmp_path / "missing", "top1", 50.0) is None
    write_predictions(tmp_path, classified())
    for metric in ("ema_top5", "miou", "ap_box", "label", "ema_"):
        assert read_units(tmp_path, metric) is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"prediction": np.array([3, 1])}, "not of the same images"),
        ({"cluster": np.array([3, 1])}, "cluster is not one integer for each of 4 images"),
        ({"cluster": np.zeros(4)}, "cluster is not one integer"),
        ({"prediction": np.array([[3, 1, 0, 2]]), "label": LABELS[None]}, "has no values of top1"),
        ({"prediction": LABELS[:0], "label": LABELS[:0]}, "has no values of top1"),
        ({"prediction": np.array([0, 1, 0, 2])}, "belongs to another result: its top1 is 50, not 75"),
        ({"label": np.array([{}], object)}, "allow_pickle"),
    ],
)
def test_arrays_that_do_not_fit_are_reported(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    write_predictions(tmp_path, classified(**changed))
    with pytest.raises(CorruptRecordError, match=why) as raised:
        read_units(tmp_path, "top1", 75.0)
    assert str(tmp_path / PREDICTIONS_FILE) in str(raised.value)


def test_a_mean_that_differs_by_rounding_is_the_same(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified())
    assert read_units(tmp_path, "top1", 75.009) is not None
    with pytest.raises(CorruptRecordError, match="another result"):
        read_units(tmp_path, "top1", 75.011)
    write_predictions(tmp_path, classified(loss=np.array([1, np.nan, 1, 1], np.float32)))
    with pytest.raises(CorruptRecordError, match="loss is nan"):
        read_units(tmp_path, "loss")


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified())
    path = tmp_path / PREDICTIONS_FILE
    whole = path.read_bytes()
    for content in (whole[:-30], whole[:100], b"", b"not an archive"):
        path.write_bytes(content)
        with pytest.raises(CorruptRecordError, match="readable"):
            read_units(tmp_path, "top1")
        with pytest.raises(CorruptRecordError, match="readable"):
            focal_lab.load_predictions(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        read_units(tmp_path, "top1")


def test_a_user_gets_everything(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified())
    found = focal_lab.load_predictions(str(tmp_path))
    assert found.keys() == classified().keys()
    assert found["label"].dtype == np.uint8
    assert found["cluster"].dtype == np.uint32
    found["label"][0] = 9  # his own copy
    np.testing.assert_array_equal(np.load(tmp_path / PREDICTIONS_FILE)["label"], LABELS)
    with pytest.raises(UserError, match="does not exist"):
        focal_lab.load_predictions(tmp_path / "other")
