"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) on P2 to P6 of the pyramid, as in the paper."""

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from focal_lab.tasks.detection import two_stage
from focal_lab.tasks.detection.settings import Settings

HAS_MASKS = True
STAGES, FIRST_LABEL = two_stage.STAGES, two_stage.FIRST_LABEL
_RESOLUTION = 14


def build(settings: Settings) -> nn.Module:
    """torchvision's Mask R-CNN: Faster R-CNN, and four convolutions that predict each object's mask."""
    channels = settings.channels
    return two_stage.build_two_stage(
        MaskRCNN,
        settings,
        mask_roi_pool=two_stage.region_align(settings, _RESOLUTION),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, settings.num_classes + 1),
    )
