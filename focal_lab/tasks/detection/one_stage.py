"""The common part of methods without region proposals."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from focal_lab.tasks.detection.pyramid import Pyramid
from focal_lab.tasks.detection.regions import NEVER, Anchors, in_full
from focal_lab.tasks.detection.settings import Settings
from focal_lab.tasks.padding import shield

STAGES = 3
FIRST_LABEL = 0


def build_one_stage(
    network: Any, settings: Settings, pyramid: Pyramid, anchors: Anchors, head: nn.Module, **defaults: Any
) -> nn.Module:
    """A torchvision network that predicts at every position of a pyramid.

    Args:
        network: torchvision's class.
        settings: its parts.
        pyramid: backbone and pyramid.
        anchors: boxes at the positions.
        head: is applied to each map.
        defaults: options that the user may change.
    """
    shield(head, settings.extent)
    head.register_forward_hook(partial(_never_outside, anchors))
    detector: nn.Module = settings.construct(
        network,
        defaults,
        backbone=pyramid,
        num_classes=settings.num_classes,
        anchor_generator=anchors,
        head=head,
    )
    return detector


def _never_outside(
    anchors: Anchors, head: nn.Module, arguments: tuple[list[Tensor], ...], outputs: dict[str, Any]
) -> dict[str, Any]:
    """A head's forward hook: no class, and no loss, at positions beyond an image.

    Full precision from here on, because half precision would move boxes by a pixel.
    """
    outputs = {name: in_full(value) for name, value in outputs.items()}
    outside_BA = anchors.outside(arguments[0])
    if outside_BA is None:
        return outputs
    return outputs | {"cls_logits": outputs["cls_logits"].masked_fill(outside_BA[..., None], NEVER)}
