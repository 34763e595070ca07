"""What the methods without region proposals share."""

from typing import Any

from torch import Tensor, nn

from focal_lab.tasks.detectors.extent import NEVER, Anchors, in_full


def never_outside(
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
