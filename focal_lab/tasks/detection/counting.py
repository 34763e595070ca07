"""Multiply-accumulates of a detector, as the papers count them."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from focal_lab.backbones.counting import count_gmacs
from focal_lab.backbones.options import Size
from focal_lab.tasks.padding import padded_size

# Regions per image in the papers' counts of detectors with proposals.
BOX_REGIONS, MASK_REGIONS = 1000, 100
PAPER_SIZE = (800, 1280)  # height and width of the papers' image


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
