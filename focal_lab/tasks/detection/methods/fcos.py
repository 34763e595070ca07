"""FCOS (Tian et al. 2019, arXiv 1904.01355), without anchors; P6 and P7 come from P5 as in its paper."""

from functools import partial

from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead

from focal_lab.tasks.detection import one_stage
from focal_lab.tasks.detection.pyramid import Pyramid
from focal_lab.tasks.detection.regions import Anchors
from focal_lab.tasks.detection.settings import Settings
from focal_lab.tasks.padding import ShieldedGroupNorm

HAS_MASKS = False
STAGES, FIRST_LABEL = one_stage.STAGES, one_stage.FIRST_LABEL


def build(settings: Settings) -> nn.Module:
    """torchvision's FCOS; its "anchors" are the positions, one stride wide."""
    channels = settings.channels
    pyramid = Pyramid(settings.features, channels, "convolutions of p5")
    anchors = Anchors(settings.extent, pyramid.strides, [[stride] for stride in pyramid.strides], (1.0,))
    norm = partial(ShieldedGroupNorm, settings.extent, 32 if channels % 32 == 0 else 1)
    head = FCOSHead(32, 1, settings.num_classes)  # its parts are replaced, because it has no option for norms
    head.classification_head = FCOSClassificationHead(channels, 1, settings.num_classes, norm_layer=norm)
    head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=norm)
    return one_stage.build_one_stage(FCOS, settings, pyramid, anchors, head)
