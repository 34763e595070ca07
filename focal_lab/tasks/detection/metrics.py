"""Average precision as COCO defines it, in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

# our names, and torchmetrics'
_NAMES = {
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
}
# torchmetrics' states: an entry a picture, or none where the kind is not judged
_LISTS = (
    "detection_box",
    "detection_mask",
    "detection_scores",
    "detection_labels",
    "groundtruth_box",
    "groundtruth_mask",
    "groundtruth_labels",
    "groundtruth_crowds",
    "groundtruth_area",
)
_KINDS = {"box": "bbox", "mask": "segm"}


def metric_names(masks: bool) -> tuple[str, ...]:
    """ap_box, ap50_box, ...; and the same of masks."""
    return tuple(f"{name}_{kind}" for kind in _kinds(masks) for name in _NAMES)


def _kinds(masks: bool) -> list[str]:
    return ["box", "mask"] if masks else ["box"]


class AveragePrecision(MeanAveragePrecision):
    """torchmetrics' mean average precision by faster_coco_eval, under our names.

    Sizes are COCO's: small below 32 x 32 px of mask (of box, where there are no masks), large
    from 96 x 96 px on.

    Args:
        masks: whether masks are judged, too.
        per_class: whether each class gets its own figure.
    """

    pictures: list[Tensor]

    def __init__(self, masks: bool, per_class: bool = False) -> None:
        kinds: Any = tuple(_KINDS[kind] for kind in _kinds(masks))
        with torch.device("cpu"):  # a model that is only counted is built on the meta device
            super().__init__(
                iou_type=kinds,
                # torchmetrics' own are rounded to float32, which moves recalls that meet a threshold: AP of
                # a small set then differs from pycocotools' by up to 0.2 points
                iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
                rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
                backend="faster_coco_eval",
                class_metrics=per_class,
            )
        self.add_state("pictures", default=[], dist_reduce_fx=None)
        self.masks = masks
        self.warn_on_many_detections = False

    def update(self, preds: list[dict[str, Tensor]], target: list[dict[str, Tensor]]) -> None:
        """Take answers and truths of some pictures; `image_id` in the truths tells pictures apart."""
        super().update(preds, target)
        for answer, truth in zip(preds, target, strict=True):
            if "image_id" in truth:
                self.pictures.append(truth["image_id"].reshape(1).to(answer["scores"].device))

    def compute(self) -> dict[str, Tensor]:
        """torchmetrics' figures, with each picture judged once.

        With several processes Lightning repeats pictures until all processes have as many.
        """
        numbers = torch.cat(self.pictures).tolist() if self.pictures else []
        first = sorted({number: i for i, number in reversed(list(enumerate(numbers)))}.values())
        if len(first) == len(numbers):
            return dict(super().compute())
        kept = {name: getattr(self, name) for name in _LISTS}
        try:
            for name, values in kept.items():
                setattr(self, name, [values[i] for i in first] if len(values) == len(numbers) else values)
            return dict(super().compute())
        finally:
            for name, values in kept.items():
                setattr(self, name, values)

    def percent(self) -> dict[str, Tensor]:
        """Figures over all pictures so far, 0 to 100, and NaN for what has no object of that size."""
        found = self.compute()
        return {
            f"{ours}_{kind}": _percent(found[f"{_prefix(self.masks, kind)}{theirs}"])
            for kind in _kinds(self.masks)
            for ours, theirs in _NAMES.items()
        }

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """AP of each class that has objects, by kind and by the class's name."""
        found = self.compute()
        classes = found["classes"].reshape(-1).tolist()
        return {
            kind: {
                names[number]: _percent(value)
                for number, value in zip(
                    classes,
                    found[f"{_prefix(self.masks, kind)}map_per_class"].reshape(-1),
                    strict=True,
                )
            }
            for kind in _kinds(self.masks)
        }


def _prefix(masks: bool, kind: str) -> str:
    return f"{_KINDS[kind]}_" if masks else ""


def _percent(value: Tensor) -> Tensor:
    """COCO says -1 where there is nothing to find."""
    return torch.where(value < 0, torch.nan, 100 * value)
