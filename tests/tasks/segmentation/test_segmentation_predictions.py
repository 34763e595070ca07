"""Pixels of each class and image, and the metrics image by image that a report makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focal_lab.sweep.run_folder.predictions import read_units
from focal_lab.sweep.run_folder.result import CorruptRecordError
from focal_lab.tasks.segmentation.metrics import METRICS, Confusion
from focal_lab.tasks.segmentation.predictions import recorded
from focal_lab.training.predictions_file import write_predictions

CLASSES, IGNORED = 6, 255


def random_masks(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predicted and true classes of images; class 4 is predicted only, 5 is nowhere."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        true = rng.integers(0, 4, (1, 1)) + (rng.random((9, 7)) < rng.random() * 0.4)
        true = np.minimum(true, 3)
        found = np.where(rng.random((9, 7)) < rng.random() * 0.5, rng.integers(0, 5, (9, 7)), true)
        masks.append(
            (torch.from_numpy(found), torch.from_numpy(np.where(rng.random((9, 7)) < 0.1, IGNORED, true)))
        )
    return masks


def arrays_of(
    masks: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """What a test leaves, and its metrics."""
    metric = Confusion(CLASSES, IGNORED)
    for number, (found, true) in enumerate(masks):
        metric.update(found, true, number)
    scores = metric.compute()
    table = dict(recorded(metric).tables[""])
    return table | {"images": np.array(len(masks))}, {name: float(scores[name]) for name in METRICS}


def test_pixels_are_counted_by_image_and_class() -> None:
    true = torch.tensor([[0, 0, 1], [1, IGNORED, 1]])
    found = torch.tensor([[0, 2, 1], [1, 0, 0]])
    empty = torch.full((1, 2), IGNORED)
    arrays, _ = arrays_of([(torch.zeros(1, 2, dtype=torch.int64), empty), (found, true)])
    rows = zip(*(arrays[name] for name in ("image", "class", "intersection", "union", "target")), strict=True)
    assert [tuple(map(int, row)) for row in rows] == [(1, 0, 1, 3, 2), (1, 1, 2, 3, 3), (1, 2, 0, 1, 0)]
    assert int(arrays["images"]) == 2


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_of_the_units_is_the_metric(tmp_path: Path, metric: str) -> None:
    masks = random_masks(40, 0)
    masks[3] = (masks[3][0], torch.full_like(masks[3][1], IGNORED))  # an image without rows
    arrays, metrics = arrays_of(masks)
    write_predictions(tmp_path, arrays | {"cluster": np.arange(40) // 2})
    units = read_units(tmp_path, metric, metrics[metric])
    assert units is not None
    assert units.values.shape == (40,)
    assert units.values.dtype == np.float32
    assert units.values.mean(dtype=float) == pytest.approx(metrics[metric], rel=1e-6)
    assert units.values[3] == pytest.approx(metrics[metric], rel=1e-6)
    assert units.clusters is not None
    assert units.clusters.tolist() == [i // 2 for i in range(40)]


@pytest.mark.parametrize("metric", METRICS)
def test_the_spread_of_the_units_is_that_of_a_bootstrap_over_images(tmp_path: Path, metric: str) -> None:
    masks, rng = random_masks(120, 1), np.random.default_rng(0)
    arrays, metrics = arrays_of(masks)
    write_predictions(tmp_path, arrays)
    units = read_units(tmp_path, metric, metrics[metric])
    assert units is not None
    images = [
        [arrays[name][arrays["image"] == i] for name in ("class", "intersection", "union", "target")]
        for i in range(120)
    ]
    drawn = []
    for _ in range(200):
        label, right, union, target = (
            np.concatenate(part)
            for part in zip(*(images[i] for i in rng.integers(120, size=120)), strict=True)
        )
        sums = [np.bincount(label, part, minlength=CLASSES) for part in (right, union, target)]
        drawn.append(
            {
                "miou": 100 * np.mean(sums[0][sums[1] > 0] / sums[1][sums[1] > 0]),
                "macc": 100 * np.mean(sums[0][sums[2] > 0] / sums[2][sums[2] > 0]),
                "pixel_acc": 100 * sums[0].sum() / sums[2].sum(),
            }[metric]
        )
    error = units.values.astype(float).std(ddof=1) / np.sqrt(120)
    assert error == pytest.approx(np.std(drawn, ddof=1), rel=0.2)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"images": np.array(3)}, "rows of more than 3 images"),
        ({"images": np.array([4, 4])}, ""),
        ({"union": np.arange(3)}, ""),
        ({"class": None}, "lacks the array 'class'"),
        ({"intersection": np.zeros(1000, np.int64)}, ""),
    ],
)
def test_arrays_that_do_not_fit_are_reported(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    arrays, _ = arrays_of(random_masks(4, 2))
    whole = {name: values for name, values in (arrays | changed).items() if values is not None}
    write_predictions(tmp_path, whole)
    with pytest.raises(CorruptRecordError, match=why):
        read_units(tmp_path, "miou")


def test_a_test_without_a_pixel_that_counts_has_no_units(tmp_path: Path) -> None:
    arrays, _ = arrays_of([(torch.zeros(1, 2, dtype=torch.int64), torch.full((1, 2), IGNORED))])
    write_predictions(tmp_path, arrays)
    for metric in METRICS:
        with pytest.raises(CorruptRecordError, match="nan"):
            read_units(tmp_path, metric)
