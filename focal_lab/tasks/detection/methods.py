"""The detection methods by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from focal_lab.errors import UserError, known_names
from focal_lab.tasks.detection.one_stage import fcos, retinanet
from focal_lab.tasks.detection.parts import Settings
from focal_lab.tasks.detection.two_stage import faster_rcnn, mask_rcnn


class Method(NamedTuple):
    """A detection method.

    Attributes:
        build: makes the network.
        stages: of the backbone that it uses.
        first_label: number of class 0; 1 where 0 means background.
        has_masks: whether it predicts masks.
    """

    build: Callable[[Settings], nn.Module]
    stages: int
    first_label: int
    has_masks: bool = False


METHODS = {
    "faster_rcnn": Method(faster_rcnn, stages=4, first_label=1),
    "fcos": Method(fcos, stages=3, first_label=0),
    "mask_rcnn": Method(mask_rcnn, stages=4, first_label=1, has_masks=True),
    "retinanet": Method(retinanet, stages=3, first_label=0),
}


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        UserError: there is no such method.
    """
    if name not in METHODS:
        raise UserError(f"{name!r} is not a method{known_names(name, METHODS)}", key="model.method")
    return METHODS[name]


def most_found(detector: Any) -> tuple[int, str]:
    """The most objects of an image that a network reports, and the option that sets it."""
    if not hasattr(detector, "roi_heads"):
        return int(detector.detections_per_img), "detections_per_img"
    return min(
        (int(detector.roi_heads.detections_per_img), "box_detections_per_img"),
        (int(detector.rpn._post_nms_top_n["testing"]), "rpn_post_nms_top_n_test"),
    )
