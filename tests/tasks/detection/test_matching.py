"""Matched detections give the AP that the metric reports."""

import numpy as np
import pytest
from support.random_detections import as_recorded, random_images

from focal_lab.tasks.detection.average_precision import average_precision
from focal_lab.tasks.detection.matching import MOST, match
from focal_lab.tasks.detection.metrics import AveragePrecision

PARTS = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}


def assert_same_precision(metric: AveragePrecision) -> None:
    arrays, images = as_recorded(metric), len(metric.detection_scores)
    reported = {name: float(value) for name, value in metric.percent().items()}
    for kind in metric.prefixes:
        (_, whole) = average_precision(arrays, kind, np.zeros(images, np.int64), 1)
        for name, part in PARTS.items():
            assert np.nanmean(whole[part]) == pytest.approx(reported[f"{name}_{kind}"], abs=1e-3), name


@pytest.mark.parametrize("crowds", [0.0, 0.3])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_precision_is_that_of_the_metric(seed: int, masks: bool, crowds: float) -> None:
    metric = AveragePrecision(masks)
    metric.update(*random_images(25, seed, masks=masks, crowds=crowds))
    assert_same_precision(metric)


def test_only_the_best_hundred_of_a_class_count() -> None:
    metric = AveragePrecision(False)
    metric.update(*random_images(6, 0, masks=False, astray=900))
    counts = np.bincount(as_recorded(metric)["image"])
    assert counts.max() == 3 * MOST
    assert_same_precision(metric)


def test_images_without_objects_or_detections_are_counted() -> None:
    found, true = random_images(4, 1, masks=True)
    for one in (found[0], true[1], found[2], true[2]):
        for name in one.keys() - {"image_id"}:
            one[name] = one[name][:0]
    metric = AveragePrecision(True)
    metric.update(found, true)
    arrays = as_recorded(metric)
    assert int(arrays["images"]) == 4
    assert 0 not in arrays["image"]
    assert 2 not in arrays["image"]
    assert 1 not in arrays["truth_image"]
    assert_same_precision(metric)


def test_an_object_is_found_once_and_a_crowd_by_many() -> None:
    ious = np.array([[0.62, 0.0, 0.9], [0.82, 0.0, 0.9], [0.0, 0.55, 0.0], [0.0, 0.0, 0.52]])
    matched, ignored = match(ious, np.array([False, False, True]))
    # at 0.5, 0.55 and 0.6 the first has taken the object that the second fits better
    assert matched.tolist() == [0b111, 0b1111000, 0b11, 0]
    assert ignored.tolist() == [0b111111000, 0b110000111, 0, 0b1]
