"""What the methods without region proposals share."""

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
    """A network of torchvision's that looks at every position of a pyramid.

    Args:
        network: torchvision's class.
        settings: what it is made from.
        pyramid: backbone and pyramid.
        anchors: boxes at the positions.
        head: what is applied to each map.
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
    """A forward hook of a head: no class at positions beyond a picture, and no loss there.

    What the head says is in full precision from here on: half of it would move boxes by a pixel.
    """
    outputs = {name: in_full(value) for name, value in outputs.items()}
    outside_BA = anchors.outside(arguments[0])
    if outside_BA is None:
        return outputs
    return outputs | {"cls_logits": outputs["cls_logits"].masked_fill(outside_BA[..., None], NEVER)}
