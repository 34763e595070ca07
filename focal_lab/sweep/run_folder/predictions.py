"""Reads a run's `predictions.npz`: what its test found in each image, and its metrics image by image.

NumPy only: reports read thousands without torch. A result without the file is complete.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import PREDICTIONS_FILE
from focal_lab.sweep.run_folder.result import CorruptRecordError
from focal_lab.utils.npz import Npz
from focal_lab.utils.read_file import read_file

Arrays = Mapping[str, NDArray[Any]]

# The mean of a metric's units and the result's value differ by rounding, which is far less than this.
_TOLERANCE = 0.01
_EMA = "ema_"
_HUNDRED = np.float32(100)


@dataclass(frozen=True)
class Units:
    """A metric as one value an image, which together are its sample: their mean is the metric.

    Attributes:
        values: in the unit of the result (accuracies in percent), float32, shape (I,), in the order of the
            test set.
        clusters: source of each image, int32, shape (I,): images that share one are not independent. None if
            all are independent.
        labels: checksum of the images' labels, which differs between test sets; 0 without labels.
    """

    values: NDArray[np.float32]
    clusters: NDArray[np.int32] | None
    labels: int = 0


def load_predictions(folder: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of a run's predictions; docs/training.md describes them.

    Args:
        folder: of the run, such as `runs/0a1b2c3d4e5f`.

    Raises:
        UserError: the run has no predictions, or they are damaged (CorruptRecordError).
    """
    path = Path(folder) / PREDICTIONS_FILE
    found = _open(path)
    if found is None:
        raise UserError(
            "does not exist (it is written when a run is trained; runs of earlier versions have none)",
            file=path,
        )
    try:
        return {name: found[name].copy() for name in found}
    except ValueError as error:
        raise CorruptRecordError(str(error), file=path) from error


def read_units(folder: str | Path, metric: str, expected: float | None = None) -> Units | None:
    """A metric image by image; None if the run has no predictions, or they do not have the metric.

    Args:
        folder: of the run.
        metric: its name in the result, such as `top1`, `ema_loss`, `miou` or `ap_box`.
        expected: its value in the result.

    Raises:
        CorruptRecordError: the file is damaged, or its mean is not the expected value: it belongs to
            another result. A report says so, and goes on without it.
    """
    return read_metrics(folder, {metric: expected}).get(metric)


def read_metrics(folder: str | Path, metrics: Mapping[str, float | None]) -> dict[str, Units]:
    """Metrics image by image, those that the predictions have; as `read_units`, but the file is read once.

    Args:
        folder: of the run.
        metrics: name -> expected value.
    """
    path = f"{os.fspath(folder)}/{PREDICTIONS_FILE}"
    found = _open(path)
    if found is None:
        return {}
    try:
        labels = _checksum(*_bytes_of(found["label"])) if "label" in found else 0
        units = ((metric, _units(found, metric, expected, labels)) for metric, expected in metrics.items())
        return {metric: one for metric, one in units if one is not None}
    except KeyError as error:
        raise CorruptRecordError(f"lacks the array {error}", file=path) from error
    except (ValueError, TypeError, IndexError) as error:
        raise CorruptRecordError(str(error), file=path) from error


def _open(path: str | Path) -> Npz | None:
    try:
        return Npz(read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CorruptRecordError(f"cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:
        raise CorruptRecordError(str(error), file=path) from error


def _units(found: Arrays, metric: str, expected: float | None, labels: int) -> Units | None:
    """Raises ValueError if arrays do not fit each other, or the expected mean."""
    clusters = "cluster"
    if f"unit_{metric}" in found:
        values = found[f"unit_{metric}"]
        clusters = "unit_cluster" if "unit_cluster" in found else clusters
    else:
        prefix = _EMA if metric.startswith(_EMA) else ""
        derive, needed = _DERIVED.get(metric.removeprefix(prefix), (None, ""))
        if derive is None or f"{prefix}{needed}" not in found:
            return None
        values = derive(found, prefix)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"has no values of {metric}")
    # a view would hold the whole file in memory
    own = values.astype(np.float32, copy=values.base is not None)
    exact = own if values.dtype == np.float16 else values
    mean = float(np.add.reduce(exact, dtype=np.float64)) / len(values)
    if not math.isfinite(mean):
        raise ValueError(f"its {metric} is {mean}")
    if expected is not None and not abs(mean - expected) <= _TOLERANCE:
        raise ValueError(f"belongs to another result: its {metric} is {mean:.6g}, not {expected:.6g}")
    return Units(own, _clusters(found, clusters, len(values)), labels)


def _clusters(found: Arrays, name: str, count: int) -> NDArray[np.int32] | None:
    if name not in found:
        return None
    clusters = found[name]
    if clusters.shape != (count,) or clusters.dtype.kind not in "iu":
        raise ValueError(f"{name} is not one integer for each of {count} images")
    return _shared(*_bytes_of(clusters))


def _bytes_of(values: NDArray[Any]) -> tuple[bytes, str]:
    return values.tobytes(), values.dtype.str


@lru_cache(maxsize=16)
def _checksum(labels: bytes, kind: str) -> int:
    """Of labels in any type; most runs have the same."""
    return crc32(np.frombuffer(labels, kind).astype(np.int32).tobytes())


@lru_cache(maxsize=16)
def _shared(clusters: bytes, kind: str) -> NDArray[np.int32]:
    """One array for all runs with the same sources."""
    return np.frombuffer(clusters, kind).astype(np.int32)


def _top1(found: Arrays, prefix: str) -> NDArray[Any]:
    label, prediction = found["label"], found[f"{prefix}prediction"]
    if label.shape != prediction.shape:
        raise ValueError("labels and predictions are not of the same images")
    return np.equal(prediction, label) * _HUNDRED


def _top5(found: Arrays, prefix: str) -> NDArray[Any]:
    return found[f"{prefix}top5"] * _HUNDRED


def _loss(found: Arrays, prefix: str) -> NDArray[Any]:
    return found[f"{prefix}loss"]


def _miou(found: Arrays, prefix: str) -> NDArray[Any]:
    return _of_classes(found, "union")


def _macc(found: Arrays, prefix: str) -> NDArray[Any]:
    return _of_classes(found, "target")


def _of_classes(found: Arrays, whole: str) -> NDArray[np.float64]:
    """The mean over classes of the ratio of intersection and `whole`, linear in the images' weights.

    Each image's influence on the ratio of sums (the infinitesimal jackknife): exact for their mean, and to
    first order for its variance.
    """
    label, image = found["class"], found["image"]
    right, total = found["intersection"], found[whole]
    total_K: NDArray[Any] = np.bincount(label, total)
    present = np.count_nonzero(total_K)
    total_K[total_K == 0] = 1  # a class that is nowhere in the truth has no accuracy, and rows of zeros
    ratio_K: NDArray[np.float64] = np.bincount(label, right) / total_K
    influence = np.where(total > 0, (right - ratio_K[label] * total) / total_K[label], 0.0)
    return _around(
        ratio_K.sum() / present if present else math.nan, influence / max(present, 1), image, found
    )


def _pixel_acc(found: Arrays, prefix: str) -> NDArray[Any]:
    right, total = found["intersection"], found["target"]
    everything = float(total.sum(dtype=np.float64)) or math.nan
    ratio = float(right.sum(dtype=np.float64)) / everything
    return _around(ratio, (right - ratio * total) / everything, found["image"], found)


def _around(
    ratio: float, influence: NDArray[np.float64], image: NDArray[Any], found: Arrays
) -> NDArray[np.float64]:
    """Percent of each image: the ratio plus so many times the rows' influence as there are images."""
    images = int(found["images"])
    if len(image) and int(image.max()) >= images:
        raise ValueError(f"has rows of more than {images} images")
    units: NDArray[Any] = 100 * (ratio + images * np.bincount(image, influence, minlength=images))
    return units


Derive = Callable[[Arrays, str], NDArray[Any]]
# metric -> what computes it, and an array that it needs
_DERIVED: dict[str, tuple[Derive, str]] = {
    "top1": (_top1, "prediction"),
    "top5": (_top5, "top5"),
    "loss": (_loss, "loss"),
    "miou": (_miou, "intersection"),
    "macc": (_macc, "intersection"),
    "pixel_acc": (_pixel_acc, "intersection"),
}
