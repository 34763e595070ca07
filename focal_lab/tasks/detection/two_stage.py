"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) and Mask R-CNN (He et al. 2017, arXiv 1703.06870)."""

from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from focal_lab.tasks.detection.parts import Pyramid, Settings
from focal_lab.tasks.detection.regions import NEVER, Anchors, RegionAlign, are_outside, in_full
from focal_lab.tasks.padding import shield

_BOX_RESOLUTION, _MASK_RESOLUTION = 7, 14  # of a region's features


def faster_rcnn(settings: Settings) -> nn.Module:
    """torchvision's Faster R-CNN."""
    return _build(FasterRCNN, settings)


def mask_rcnn(settings: Settings) -> nn.Module:
    """torchvision's Mask R-CNN: Faster R-CNN, and four convolutions that predict each object's mask."""
    channels = settings.channels
    return _build(
        MaskRCNN,
        settings,
        mask_roi_pool=_region_align(settings, _MASK_RESOLUTION),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, settings.num_classes + 1),
    )


def _build(network: Any, settings: Settings, **arguments: Any) -> nn.Module:
    """A class of torchvision's on the pyramid P2 to P6, as in the papers."""
    pyramid = Pyramid(settings.features, settings.channels, "pool")
    anchors = Anchors(
        settings.extent, pyramid.strides, [[8 * stride] for stride in pyramid.strides], (0.5, 1.0, 2.0)
    )
    rpn_head = RPNHead(settings.channels, 3)
    shield(rpn_head, settings.extent)
    rpn_head.register_forward_hook(partial(_never_outside, anchors))
    detector: nn.Module = settings.construct(
        network,
        backbone=pyramid,
        rpn_anchor_generator=anchors,
        rpn_head=rpn_head,
        box_roi_pool=_region_align(settings, _BOX_RESOLUTION),
        box_head=TwoMLPHead(settings.channels * _BOX_RESOLUTION**2, settings.head_width),
        box_predictor=FastRCNNPredictor(settings.head_width, settings.num_classes + 1),
        **arguments,
    )
    heads: Any = cast(Any, detector).roi_heads
    for predictor in (heads.box_predictor, heads.mask_predictor):
        if predictor is not None:
            predictor.register_forward_hook(_in_full)
    # torchvision builds its proposal network itself, and only its class differs
    cast(Any, detector).rpn.__class__ = ShieldedProposals
    return detector


class ShieldedProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, but anchors beyond an image are not examples of background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 object, 0 background, -1 neither) and boxes of the anchors of each image."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        pairs = zip(labels, anchors, strict=True)
        return [label_A.masked_fill(are_outside(anchor_A4), -1.0) for label_A, anchor_A4 in pairs], boxes


def _region_align(settings: Settings, resolution: int) -> RegionAlign:
    """Regions of that resolution from P2 to P5."""
    return RegionAlign(settings.extent, settings.features.strides, resolution)


def _never_outside(
    anchors: Anchors, head: nn.Module, arguments: tuple[list[Tensor], ...], outputs: tuple[Any, Any]
) -> tuple[Any, Any]:
    """The proposal head's forward hook: no object at positions beyond an image."""
    objectness, deltas = outputs
    cleared = []
    for x_BCHW, logits_BAHW in zip(arguments[0], objectness, strict=True):
        inside, logits_BAHW = anchors.extent.inside(x_BCHW), in_full(logits_BAHW)
        cleared.append(logits_BAHW if inside is None else logits_BAHW.masked_fill(~inside, NEVER))
    return cleared, [in_full(deltas_BAHW) for deltas_BAHW in deltas]


def _in_full(predictor: nn.Module, arguments: Any, outputs: Any) -> Any:
    """A predictor's forward hook: full precision from here on."""
    return in_full(outputs) if isinstance(outputs, Tensor) else tuple(in_full(part) for part in outputs)
