"""AP image by image: the mean is the metric, and the spread is that of resampled images."""

import numpy as np
import pytest
from support.random_detections import Arrays, as_recorded, random_images, random_matches

from focal_lab.tasks.detection.average_precision import (
    GROUPS,
    average_precision,
    group_images,
    jackknife_units,
)
from focal_lab.tasks.detection.metrics import AveragePrecision

PARTS = {"ap_box": slice(None), "ap50_box": slice(0, 1), "ap75_box": slice(5, 6)}


def metrics_of(arrays: Arrays) -> dict[str, float]:
    (_, whole) = average_precision(arrays, "box", np.zeros(int(arrays["images"]), np.int64), 1)
    return {name: float(np.nanmean(whole[part])) for name, part in PARTS.items()}


def resampled(arrays: Arrays, chosen: list[int]) -> Arrays:
    """The images of these numbers, some of them several times."""
    found = {"images": np.array(len(chosen))}
    for prefix, names in {"": ("class", "score", "box_matched"), "truth_": ("class", "count")}.items():
        starts = np.searchsorted(arrays[f"{prefix}image"], np.arange(int(arrays["images"]) + 1))
        rows = np.concatenate([np.arange(starts[image], starts[image + 1]) for image in chosen])
        counts = [starts[image + 1] - starts[image] for image in chosen]
        found[f"{prefix}image"] = np.repeat(np.arange(len(chosen)), counts)
        found |= {f"{prefix}{name}": arrays[f"{prefix}{name}"][rows] for name in names}
    return found


@pytest.mark.parametrize("masks", [False, True])
def test_all_but_one_image_have_the_precision_that_the_metric_gives_them(masks: bool) -> None:
    found, true = random_images(12, 5, masks=masks, crowds=0.1)
    metric = AveragePrecision(masks)
    metric.update(found, true)
    arrays = as_recorded(metric)
    for kind in metric.prefixes:
        without = average_precision(arrays, kind, np.arange(12), 12)
        for left_out in range(0, 12, 3):
            rest = AveragePrecision(masks)
            rest.update(*([one for i, one in enumerate(part) if i != left_out] for part in (found, true)))
            value = float(rest.percent()[f"ap_{kind}"])
            assert np.nanmean(without[left_out]) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("images", [1, 2, 60, 501, 777])
def test_the_mean_of_the_units_is_the_metric(images: int) -> None:
    arrays = random_matches(images, 4, seed=1)
    metrics = metrics_of(arrays)
    units = jackknife_units(arrays, metrics | {"ap_small_box": 3.0, "ap_mask": 50.0})
    grouped = {"unit_cluster"} if images > 500 else set()
    assert units.keys() == {f"unit_{name}" for name in metrics} | grouped
    for name, value in metrics.items():
        values = units[f"unit_{name}"]
        assert values.shape == (images,)
        assert values.dtype == np.float32
        assert values.mean(dtype=float) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("images", "seed"), [(200, 0), (400, 1), (1200, 2)])
def test_the_spread_of_the_units_is_that_of_a_bootstrap_over_images(images: int, seed: int) -> None:
    arrays = random_matches(images, 5, seed)
    units = jackknife_units(arrays, metrics_of(arrays))
    group = units.get("unit_cluster", np.arange(images))
    groups, rng = int(group.max()) + 1, np.random.default_rng(seed)
    drawn = [metrics_of(resampled(arrays, rng.integers(images, size=images).tolist())) for _ in range(150)]
    for name in PARTS:
        values = units[f"unit_{name}"].astype(float)
        sums = np.bincount(group, values - values.mean())
        error = np.sqrt((sums**2).sum() * groups / (groups - 1)) / images
        bootstrap = np.std([one[name] for one in drawn], ddof=1)
        # the bootstrap's own error is 6 %
        assert error == pytest.approx(bootstrap, rel=0.2), name


def test_many_images_are_left_out_by_consecutive_groups_or_by_clusters() -> None:
    alone, several = group_images(500)
    assert alone.tolist() == list(range(500))
    assert not several
    groups, several = group_images(5000)
    assert several
    assert np.bincount(groups).tolist() == [25] * GROUPS
    assert (np.diff(groups) >= 0).all()
    clusters = np.random.default_rng(0).permutation(np.repeat(np.arange(300), 4))
    groups, _ = group_images(1200, clusters)
    assert len(np.unique(groups)) == GROUPS
    for cluster in range(300):
        assert len(set(groups[clusters == cluster].tolist())) == 1
    few, _ = group_images(600, np.arange(600) % 3)
    assert few.tolist() == (np.arange(600) % 3).tolist()


def test_a_metric_that_the_detections_do_not_give_again_has_no_units() -> None:
    arrays = random_matches(30, 2, seed=0)
    metrics = metrics_of(arrays)
    units = jackknife_units(arrays, metrics | {"ap_box": metrics["ap_box"] + 0.1})
    assert units.keys() == {"unit_ap50_box", "unit_ap75_box"}
