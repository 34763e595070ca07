"""Average precision as COCO defines it, in percent."""

from collections.abc import Sequence

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
# torchmetrics' states: an entry per image, or none where the kind is not evaluated
_LISTS = tuple(f"detection_{name}" for name in ("box", "mask", "scores", "labels")) + tuple(
    f"groundtruth_{name}" for name in ("box", "mask", "labels", "crowds", "area")
)


def metric_names(masks: bool) -> tuple[str, ...]:
    """ap_box, ap50_box, ...; and the same of masks."""
    return tuple(f"{name}_{kind}" for kind in ("box", "mask")[: 1 + masks] for name in _NAMES)


class AveragePrecision(MeanAveragePrecision):
    """torchmetrics' mean average precision by faster_coco_eval, under our names.

    Sizes are COCO's: small below 32 x 32 px of mask (of box, without masks), large from 96 x 96 px on.

    Args:
        masks: whether to evaluate masks, too.
        per_class: whether to report each class.
    """

    image_ids: list[Tensor]

    def __init__(self, masks: bool, per_class: bool = False) -> None:
        with torch.device("cpu"):  # a model that is only counted is built on the meta device
            super().__init__(
                iou_type=("bbox", "segm") if masks else "bbox",
                # torchmetrics rounds its own to float32, which moves recalls that meet a threshold: AP of a
                # small set then differs from pycocotools' by up to 0.2 points
                iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
                rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
                backend="faster_coco_eval",
                class_metrics=per_class,
            )
        self.add_state("image_ids", default=[], dist_reduce_fx=None)
        # torchmetrics' prefix of each kind's metrics
        self.prefixes = {"box": "bbox_", "mask": "segm_"} if masks else {"box": ""}
        self.warn_on_many_detections = False

    def update(self, preds: list[dict[str, Tensor]], target: list[dict[str, Tensor]]) -> None:
        """Add predictions and targets of some images, which `image_id` in the targets distinguishes."""
        super().update(preds, target)
        for prediction, truth in zip(preds, target, strict=True):
            if "image_id" in truth:
                self.image_ids.append(truth["image_id"].reshape(1).to(prediction["scores"].device))

    def compute(self) -> dict[str, Tensor]:
        """torchmetrics' metrics, with each image counted once.

        With several processes Lightning repeats images until all processes have as many.
        """
        numbers = torch.cat(self.image_ids).tolist() if self.image_ids else []
        first = sorted({number: i for i, number in reversed(list(enumerate(numbers)))}.values())
        if len(first) == len(numbers):
            return dict(super().compute())
        saved = {name: getattr(self, name) for name in _LISTS}
        try:
            for name, values in saved.items():
                setattr(self, name, [values[i] for i in first] if len(values) == len(numbers) else values)
            return dict(super().compute())
        finally:
            for name, values in saved.items():
                setattr(self, name, values)

    def percent(self) -> dict[str, Tensor]:
        """Metrics over all images so far, 0 to 100, and NaN for sizes without an object."""
        found = self.compute()
        return {
            f"{ours}_{kind}": _percent(found[f"{prefix}{theirs}"])
            for kind, prefix in self.prefixes.items()
            for ours, theirs in _NAMES.items()
        }

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """AP of each class that has objects, by kind and class name."""
        found = self.compute()
        present = [names[number] for number in found["classes"].reshape(-1)]
        return {
            kind: dict(zip(present, _percent(found[f"{prefix}map_per_class"]).reshape(-1), strict=True))
            for kind, prefix in self.prefixes.items()
        }


def _percent(value: Tensor) -> Tensor:
    """In percent; COCO has -1 where there is nothing to find."""
    return torch.where(value < 0, torch.nan, 100 * value)
