"""RetinaNet (Lin et al. 2017, arXiv 1708.02002) and FCOS (Tian et al. 2019, arXiv 1904.01355)."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.retinanet import RetinaNetHead

from focal_lab.tasks.detection.parts import Pyramid, Settings
from focal_lab.tasks.detection.regions import NEVER, Anchors, in_full
from focal_lab.tasks.padding import ShieldedGroupNorm, shield


def retinanet(settings: Settings) -> nn.Module:
    """torchvision's RetinaNet; P6 comes from C5, anchors are 4, 5 and 6.3 strides wide, in three shapes."""
    pyramid = Pyramid(settings.features, settings.channels, "convolutions")
    sizes = [[round(4 * stride * 2 ** (i / 3)) for i in range(3)] for stride in pyramid.strides]
    anchors = Anchors(settings.extent, pyramid.strides, sizes, (0.5, 1.0, 2.0))
    head = RetinaNetHead(settings.channels, 9, settings.num_classes)
    # as in Swin's detectors; torchvision keeps 300
    return _build(RetinaNet, settings, pyramid, anchors, head, detections_per_img=100)


def fcos(settings: Settings) -> nn.Module:
    """torchvision's FCOS; P6 and P7 come from P5; its "anchors" are the positions, one stride wide."""
    channels = settings.channels
    pyramid = Pyramid(settings.features, channels, "convolutions of p5")
    anchors = Anchors(settings.extent, pyramid.strides, [[stride] for stride in pyramid.strides], (1.0,))
    norm = partial(ShieldedGroupNorm, settings.extent, 32 if channels % 32 == 0 else 1)
    head = FCOSHead(32, 1, settings.num_classes)  # its parts are replaced, because it has no option for norms
    head.classification_head = FCOSClassificationHead(channels, 1, settings.num_classes, norm_layer=norm)
    head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=norm)
    return _build(FCOS, settings, pyramid, anchors, head)


def _build(
    network: Any, settings: Settings, pyramid: Pyramid, anchors: Anchors, head: nn.Module, **defaults: Any
) -> nn.Module:
    """A class of torchvision's that applies a head to each map; users may change its `defaults`."""
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
