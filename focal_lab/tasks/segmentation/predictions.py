"""What a test of a segmenter records of each image: pixels of each class that occurs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from focal_lab.tasks.recorded import Recorded
from focal_lab.tasks.segmentation.metrics import Confusion


def recorded(metric: Confusion) -> Recorded:
    """The images that a metric was given by this process.

    A row for each class that is predicted or present in an image: `class`, and its pixels in both prediction
    and truth (`intersection`), in either (`union`) and in the truth (`target`), ignored ones excluded.
    """
    numbers, classes = _numpy(metric.numbers), metric.num_classes
    image = np.repeat(np.arange(len(numbers)), _numpy(metric.lengths))
    pair, count = _numpy(metric.pairs), _numpy(metric.counts)
    true, found = image * classes + pair // classes, image * classes + pair % classes
    keys, places = np.unique(np.concatenate([true, found]), return_inverse=True)
    # sums of float64, exact up to 2^53 pixels
    target = np.bincount(places[: len(true)], count, minlength=len(keys)).astype(np.int64)
    predicted = np.bincount(places[len(true) :], count, minlength=len(keys)).astype(np.int64)
    right = true == found
    intersection = np.bincount(places[: len(true)][right], count[right], minlength=len(keys)).astype(np.int64)
    table = {
        "image": keys // classes,
        "class": keys % classes,
        "intersection": intersection,
        "union": target + predicted - intersection,
        "target": target,
    }
    return Recorded(np.ones(len(numbers), bool), {"": table}, numbers)


def _numpy(state: list[Tensor]) -> NDArray[Any]:
    return dim_zero_cat(state).cpu().numpy() if len(state) else np.zeros(0, np.int64)
