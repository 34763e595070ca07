"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) on a feature pyramid."""

from torch import nn
from torchvision.models.detection import FasterRCNN

from focal_lab.tasks.detection import two_stage
from focal_lab.tasks.detection.settings import Settings

HAS_MASKS = False
STAGES, FIRST_LABEL = two_stage.STAGES, two_stage.FIRST_LABEL


def build(settings: Settings) -> nn.Module:
    """torchvision's Faster R-CNN."""
    return two_stage.build_two_stage(FasterRCNN, settings)
