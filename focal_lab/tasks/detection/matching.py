"""Which detections find an object, by COCO's rules, image by image.

Shape suffixes: D detections of an image, G its objects, T IoU thresholds.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focal_lab.tasks.detection.metrics import AveragePrecision
from focal_lab.tasks.recorded import Recorded

THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST = 100  # detections that count in an image and class
_BITS = 1 << np.arange(len(THRESHOLDS))


def recorded(metric: AveragePrecision) -> Recorded:
    """What a metric was given by this process: detections with their matches, and numbers of objects.

    The first table has a row a detection, best first within an image: `class`, `score`, and for boxes and
    masks `box_matched` and `box_ignored` (matched to a crowd), whose bit t is for the threshold t. The second
    has a row for each class of objects in an image: `class` and `count`, without crowds.
    """
    found = [_image(metric, number) for number in range(len(metric.detection_scores))]
    names = [
        "class",
        "score",
        *(f"{kind}_{what}" for kind in metric.prefixes for what in ("matched", "ignored")),
    ]
    tables = {
        "": _joined([one for one, _ in found], names),
        "truth_": _joined([one for _, one in found], ["class", "count"]),
    }
    ids = torch.cat(metric.image_ids).cpu().numpy() if metric.image_ids else np.zeros(0, np.int64)
    whole = len(ids) == len(found)
    return Recorded(np.ones(len(found), bool), tables, ids if whole else None)


def match(ious_DG: NDArray[np.float64], crowd_G: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give each object to the best detection that overlaps with it, at every threshold.

    Args:
        ious_DG: of detections, best first, with objects; 0 for those of another class.
        crowd_G: which objects are crowds, that any number of detections may match.

    Returns:
        Bits of the thresholds at which a detection matches an object, and at which it matches a crowd and is
        ignored; uint16 (D,).
    """
    matched_D, ignored_D = (np.zeros(len(ious_DG), np.uint16) for _ in range(2))
    if not ious_DG.size:
        return matched_D, ignored_D
    free_TG = np.ones((len(THRESHOLDS), len(crowd_G)), bool)
    all_T = np.arange(len(THRESHOLDS))
    for number in np.flatnonzero(ious_DG.max(1) >= THRESHOLDS[0]).tolist():
        overlaps_TG = (ious_DG[number] >= THRESHOLDS[:, None]) & free_TG
        # an object before a crowd; the last of equals, as in COCO's loop
        rating_TG = np.where(overlaps_TG, ious_DG[number] + 2 * ~crowd_G, -1.0)
        best_T = rating_TG.shape[1] - 1 - rating_TG[:, ::-1].argmax(1)
        found_T = overlaps_TG[all_T, best_T]
        crowd_T = found_T & crowd_G[best_T]
        matched_D[number], ignored_D[number] = _BITS[found_T & ~crowd_T].sum(), _BITS[crowd_T].sum()
        taken_T = all_T[found_T & ~crowd_T]
        free_TG[taken_T, best_T[taken_T]] = False
    return matched_D, ignored_D


def _image(metric: AveragePrecision, number: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Detections and objects of an image."""
    score_D, label_D = (_numpy(part[number]) for part in (metric.detection_scores, metric.detection_labels))
    true_G, crowd_G = (
        _numpy(part[number]) for part in (metric.groundtruth_labels, metric.groundtruth_crowds)
    )
    order_D = _counted(score_D, label_D)
    label_D, same_DG, crowd_G = label_D[order_D], label_D[order_D][:, None] == true_G, crowd_G != 0
    columns = {"class": label_D, "score": score_D[order_D]}
    for kind in metric.prefixes:
        ious_DG = _ious(metric, kind, number, order_D, crowd_G)
        matched_D, ignored_D = match(ious_DG * same_DG, crowd_G)
        columns |= {f"{kind}_matched": matched_D, f"{kind}_ignored": ignored_D}
    classes, counts = np.unique(true_G[~crowd_G], return_counts=True)
    return columns, {"class": classes, "count": counts}


def _counted(score_D: NDArray[Any], label_D: NDArray[Any]) -> NDArray[np.int64]:
    """The detections that count, best first: so many of each class."""
    order_D = np.argsort(-score_D, kind="stable")
    if len(order_D) <= MOST:
        return order_D
    kept = [np.flatnonzero(label_D[order_D] == label)[:MOST] for label in np.unique(label_D)]
    return order_D[np.sort(np.concatenate(kept))]


def _ious(
    metric: AveragePrecision, kind: str, number: int, order_D: NDArray[np.int64], crowd_G: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Overlaps as the metric's backend computes them, (D, G); those with a crowd by COCO's rule."""
    if not len(order_D) or not len(crowd_G):
        return np.zeros((len(order_D), len(crowd_G)))
    if kind == "box":
        found, true = (_numpy(part[number]) for part in (metric.detection_box, metric.groundtruth_box))
        pair: tuple[Any, Any] = found[order_D].astype(np.float64), true.astype(np.float64)
    else:
        masks: Any = metric.detection_mask[number], metric.groundtruth_mask[number]
        pair = [_as_rle(masks[0][index]) for index in order_D.tolist()], [_as_rle(one) for one in masks[1]]
    backend: Any = metric._coco_backend
    overlaps: NDArray[np.float64] = backend.mask_utils.iou(*pair, crowd_G.astype(np.uint8).tolist())
    return np.asarray(overlaps)


def _as_rle(mask: Any) -> dict[str, Any]:
    return {"size": list(mask[0]), "counts": mask[1]}


def _numpy(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array


def _joined(images: list[dict[str, NDArray[Any]]], names: list[str]) -> dict[str, NDArray[Any]]:
    """The rows of all images, with the column `image`."""
    counts = [len(one["class"]) for one in images]
    joined = {"image": np.repeat(np.arange(len(images)), counts)}
    return joined | {
        name: np.concatenate([np.zeros(0), *(one[name] for one in images)][bool(images) :]) for name in names
    }
