"""The detection methods by name, and what their networks find and cost.

Shape suffixes: B batch, C channels, H W map.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from focal_lab.backbones.counting import count_gmacs
from focal_lab.backbones.options import Size
from focal_lab.errors import UserError, known_names
from focal_lab.tasks.detection.one_stage import fcos, retinanet
from focal_lab.tasks.detection.parts import Settings
from focal_lab.tasks.detection.two_stage import faster_rcnn, mask_rcnn
from focal_lab.tasks.padding import padded_size

# Regions per image in the papers' counts of detectors with proposals.
BOX_REGIONS, MASK_REGIONS = 1000, 100
PAPER_SIZE = (800, 1280)  # height and width of the papers' image


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


def count_detector_gmacs(detector: nn.Module, image_size: Size) -> float:
    """Billions of multiply-accumulates for one image of (height, width) pixels: backbone, pyramid, all heads.

    Matching, sampling and suppression of boxes are not counted. With region proposals the box head works on
    1,000 regions and the mask head on 100, whatever the image shows (as in the paper's tables 3 and 4).
    """
    divisor: int = cast(Any, detector).transform.size_divisible
    return count_gmacs(_Heads(detector), padded_size(image_size, divisor))


class _Heads(nn.Module):
    """A detector without the parts whose cost depends on its predictions."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images_BCHW: Tensor) -> None:
        detector: Any = self.detector
        frame = images_BCHW.shape[-2:]
        detector.transform.extent.update([(frame[0], frame[1])] * len(images_BCHW), frame)
        maps = list(detector.backbone(images_BCHW).values())
        if not hasattr(detector, "roi_heads"):
            detector.head(maps)
            return
        detector.rpn.head(maps)
        heads = detector.roi_heads
        heads.box_predictor(heads.box_head(_regions(heads.box_roi_pool, maps[0], BOX_REGIONS)))
        if heads.has_mask():
            heads.mask_predictor(heads.mask_head(_regions(heads.mask_roi_pool, maps[0], MASK_REGIONS)))


def _regions(pool: Any, like: Tensor, count: int) -> Tensor:
    return torch.empty(count, like.shape[1], *pool.output_size, device=like.device)
