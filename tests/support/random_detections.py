"""Random detections: images with predictions and targets, or matched detections as a test records them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focal_lab.tasks.detection.matching import recorded
from focal_lab.tasks.detection.metrics import AveragePrecision
from focal_lab.tasks.recorded import in_order
from focal_lab.training.predictions import columns_of

Arrays = dict[str, NDArray[Any]]
_SIDE = 24


def random_images(
    count: int, seed: int, *, masks: bool, crowds: float = 0.0, astray: int = 3
) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
    """Predictions, most of them near an object, many with equal scores, and targets."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for number in range(count):
        boxes, labels = _boxes(rng, int(rng.integers(5))), None
        labels = rng.integers(3, size=len(boxes))
        near = rng.random(len(boxes)) < 0.85
        moved = np.clip(boxes[near] + rng.normal(0, 0.8, (int(near.sum()), 4)), 0, _SIDE)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        wrong = _boxes(rng, int(rng.integers(astray + 1)))
        confused = np.where(rng.random(len(moved)) < 0.9, labels[near], rng.integers(3, size=len(moved)))
        likely = [rng.beta(4, 2, len(moved)), rng.beta(2, 4, len(wrong))]
        prediction = {
            "boxes": np.concatenate([moved, wrong]).astype(np.float32),
            "labels": np.concatenate([confused, rng.integers(3, size=len(wrong))]),
            "scores": np.concatenate(likely).round(2).astype(np.float32),
        }
        target = {
            "boxes": boxes.astype(np.float32),
            "labels": labels,
            "iscrowd": (rng.random(len(boxes)) < crowds).astype(np.int64),
            "image_id": np.array(number),
        }
        for one in (prediction, target) if masks else ():
            one["masks"] = _masks(one["boxes"])
        found.append({name: torch.from_numpy(np.asarray(values)) for name, values in prediction.items()})
        true.append({name: torch.from_numpy(np.asarray(values)) for name, values in target.items()})
    return found, true


def as_recorded(metric: AveragePrecision) -> Arrays:
    """The arrays that a test leaves which gave this to the metric."""
    part = recorded(metric)
    found = in_order([(part, np.arange(len(part.evaluated)))])
    assert found is not None
    tables, positions = found
    return columns_of(tables) | {"images": np.array(len(positions))}


def random_matches(images: int, classes: int, seed: int) -> Arrays:
    """Objects, harder in some images than in others and rarer in later classes, and their detections."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    weights /= weights.sum()
    image = np.repeat(np.arange(images), rng.poisson(3.5, images))
    label = rng.choice(classes, len(image), p=weights)
    easy = 0.3 * rng.normal(size=images)[image] + rng.normal(size=len(image))
    overlap = 1 / (1 + np.exp(-1.2 - easy))
    matched = ((overlap[:, None] > np.linspace(0.5, 0.95, 10)) << np.arange(10)).sum(1)
    wrong = np.repeat(np.arange(images), rng.poisson(6, images))
    score = [easy + 1 + 0.5 * rng.normal(size=len(image)), rng.normal(-1.5, 1, len(wrong))]
    found = {
        "image": np.concatenate([image, wrong]),
        "class": np.concatenate([label, rng.choice(classes, len(wrong), p=weights)]),
        "score": np.concatenate(score).astype(np.float32),
        "box_matched": np.concatenate([matched, np.zeros(len(wrong), np.int64)]),
    }
    order = np.lexsort((-found["score"], found["image"]))
    keys, counts = np.unique(image * classes + label, return_counts=True)
    truth = {"truth_image": keys // classes, "truth_class": keys % classes, "truth_count": counts}
    return {name: values[order] for name, values in found.items()} | truth | {"images": np.array(images)}


def _boxes(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    corner = rng.integers(0, _SIDE - 10, (count, 2))
    return np.concatenate([corner, corner + rng.integers(4, 10, (count, 2))], axis=1)


def _masks(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    masks = np.zeros((len(boxes), _SIDE, _SIDE), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = True
    return masks
