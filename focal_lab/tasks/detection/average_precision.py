"""Average precision from matched detections, and what each image contributes to it. NumPy only.

Leaving an image out changes the ranks of all detections below its own. Only ranks of matches matter, so that
all images are left out at once by counting, for each match, what lies above it and belongs to each image.

COCO reads precision at 101 recalls. One image moves a class's recall by less than such a step: what it
contributes would be nothing or a whole step, and the jackknife's error far too large (1.4 times that of the
bootstrap with 1,500 images). Contributions are therefore those to the area under the same curve.

Shape suffixes: I images, S samples (sets of images), M matches of a class at a threshold, K classes,
T IoU thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

RECALLS = np.linspace(0.0, 1.0, 101)
# with more images than the first, consecutive ones form so many groups
MOST_ALONE, GROUPS = 500, 200
_THRESHOLDS = 10
# metric -> the thresholds that it is the mean over
_PARTS = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}
# Ours and the metric's backend differ by the order of equal scores and by rounding.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class _OneClass:
    """Detections of a class, best first, and its objects.

    Attributes:
        sample: the sample that the image of each detection belongs to.
        bits, ignored: as `matching.match` returns them.
        others: objects in all images but those of a sample.
    """

    sample: NDArray[np.int64]
    bits: NDArray[Any]
    ignored: NDArray[Any]
    others: NDArray[np.int64]


def average_precision(
    arrays: Arrays, kind: str, sample_I: NDArray[np.int64], samples: int, *, area: bool = False
) -> NDArray[np.float64]:
    """Average precision of all images, and of all but those of each sample.

    Args:
        arrays: a test's predictions, as they are written.
        kind: box or mask.
        sample_I: the sample of each image, from 0.
        samples: how many there are.
        area: whether to take the area under the curve of precision over recall instead of COCO's 101 points.

    Returns:
        Percent, (S + 1, T, K), the last one of all images; NaN for classes without objects.
    """
    classes = np.unique(arrays["truth_class"])
    found = np.empty((samples + 1, _THRESHOLDS, len(classes)))
    # stable, so that equal scores stay in the order of the images
    order = np.argsort(-arrays["score"], kind="stable")
    order = order[np.argsort(arrays["class"][order], kind="stable")]
    ranked = arrays["class"][order]
    for number, label in enumerate(classes.tolist()):
        chosen = order[np.searchsorted(ranked, label, "left") : np.searchsorted(ranked, label, "right")]
        rows = arrays["truth_class"] == label
        count_S = np.bincount(
            sample_I[arrays["truth_image"][rows]], arrays["truth_count"][rows], minlength=samples + 1
        ).astype(np.int64)
        ignored = arrays.get(f"{kind}_ignored")
        one = _OneClass(
            sample_I[arrays["image"][chosen]],
            arrays[f"{kind}_matched"][chosen],
            np.zeros(len(chosen), np.uint16) if ignored is None else ignored[chosen],
            count_S.sum() - count_S,
        )
        for threshold in range(_THRESHOLDS):
            found[:, threshold, number] = _precision(one, threshold, area)
    return 100 * found


def _precision(one: _OneClass, threshold: int, area: bool) -> NDArray[np.float64]:
    """Average precision at a threshold without each sample, and with all, (S + 1,)."""
    counts = (one.ignored >> threshold & 1) == 0
    matched = (one.bits[counts] >> threshold & 1) != 0
    sample = one.sample[counts]
    samples, matches = len(one.others), int(matched.sum())
    above = np.cumsum(matched)
    wrong_M = np.flatnonzero(matched) - np.arange(matches)
    # of each sample: its matches up to each match, and its wrong detections above it
    own_SM = _counts(sample[matched], np.arange(matches), samples, matches)
    own_wrong_SM = _counts(sample[~matched], above[~matched], samples, matches)
    right_SM = np.arange(1, matches + 1) - own_SM
    total_SM = right_SM + wrong_M - own_wrong_SM
    precision_SM = right_SM / np.maximum(total_SM, 1)
    best_SM = np.maximum.accumulate(precision_SM[:, ::-1], axis=1)[:, ::-1]
    if area:
        recall_SM = right_SM / np.maximum(one.others, 1)[:, None]
    else:
        recall_SM = _recalls_reached(one.others, right_SM, matches) / len(RECALLS)
    weight_SM = np.diff(recall_SM, axis=1, prepend=0)  # 0 for the sample's own matches
    found_S: NDArray[np.float64] = (weight_SM * best_SM).sum(1)
    return np.where(one.others > 0, found_S, np.nan)


def _counts(
    sample: NDArray[np.int64], match: NDArray[np.int64], samples: int, matches: int
) -> NDArray[np.int64]:
    """How many of the pairs (sample, match) each sample has up to each match, (S, M)."""
    width = matches + 1  # the last for what lies below all matches
    flat = np.bincount(sample * width + match, minlength=samples * width)
    return np.cumsum(flat.reshape(samples, width)[:, :matches], axis=1)


def _recalls_reached(
    others: NDArray[np.int64], right_SM: NDArray[np.int64], matches: int
) -> NDArray[np.int64]:
    """How many of `RECALLS` are reached with so many matches of so many objects, (S, M); 0 with none."""
    different, which_S = np.unique(others, return_inverse=True)
    recall = np.arange(matches + 1) / np.maximum(different, 1)[:, None]
    table = np.searchsorted(RECALLS, recall, side="right")
    table[:, 0] = 0
    reached: NDArray[np.int64] = table[which_S[:, None], right_SM]
    return reached


def jackknife_units(arrays: Arrays, metrics: Mapping[str, float]) -> dict[str, NDArray[Any]]:
    """Each AP metric as one value an image: pseudo-values of the jackknife, shifted to the metric's mean.

    Args:
        arrays: a test's predictions, as they are written.
        metrics: of the result; those that are not ap, ap50 or ap75 are left out.

    Returns:
        `unit_<metric>`, float32 (I,), and with groups of images `unit_cluster`, the group of each. A metric
        that the detections do not give again is left out.
    """
    images = int(arrays["images"])
    sample_I, grouped = group_images(images, arrays.get("cluster"))
    samples = int(sample_I.max(initial=-1)) + 1
    found: dict[str, NDArray[Any]] = {}
    for kind in ("box", "mask"):
        wanted = [name for name in _PARTS if f"{name}_{kind}" in metrics]
        if not wanted or f"{kind}_matched" not in arrays or not len(arrays["truth_class"]):
            continue
        whole_TK = average_precision(arrays, kind, np.zeros(images, np.int64), 1)[-1:]
        area_STK = average_precision(arrays, kind, sample_I, samples, area=True)
        for name in wanted:
            value, part = metrics[f"{name}_{kind}"], _PARTS[name]
            if abs(_mean(whole_TK[:, part])[0] - value) <= _TOLERANCE:
                found[f"unit_{name}_{kind}"] = _units(_mean(area_STK[:, part]), value, sample_I)
    return found | ({"unit_cluster": sample_I} if found and grouped else {})


def group_images(images: int, clusters: NDArray[Any] | None = None) -> tuple[NDArray[np.int64], bool]:
    """The sample that each image is left out with, and whether samples have several images.

    Up to 500 images are left out one by one, more by 200 groups of consecutive images, or of clusters that
    follow each other.
    """
    if images <= MOST_ALONE:
        return np.arange(images), False
    _, first, number = np.unique(
        np.arange(images) if clusters is None else clusters, return_index=True, return_inverse=True
    )
    place = np.argsort(np.argsort(first))[number]  # clusters in the order of their first images
    count = len(first)
    return place * min(GROUPS, count) // count, True


def _mean(precision_STK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over thresholds and the classes that have objects, (S,); NaN without any."""
    present = ~np.isnan(precision_STK)
    count = present.sum((1, 2))
    total = np.where(present, precision_STK, 0.0).sum((1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _units(value_S: NDArray[np.float64], metric: float, sample_I: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pseudo-values: n times the whole minus n - 1 times the rest, in units whose mean is the metric."""
    whole, rest = value_S[-1], value_S[:-1]
    rest = np.where(np.isnan(rest), whole, rest)  # all objects are in one sample
    pseudo = -(len(rest) - 1) * (rest - rest.mean())
    # images of a larger sample share its contribution
    share = len(sample_I) / (len(rest) * np.bincount(sample_I, minlength=len(rest)))
    units: NDArray[np.float32] = (metric + (share * pseudo)[sample_I]).astype(np.float32)
    return units
