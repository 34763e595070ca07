"""RetinaNet (Lin et al. 2017, arXiv 1708.02002) as in its paper: P3 to P5 of the pyramid, P6 from C5."""

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from focal_lab.tasks.detection import one_stage
from focal_lab.tasks.detection.pyramid import Pyramid
from focal_lab.tasks.detection.regions import Anchors
from focal_lab.tasks.detection.settings import Settings

HAS_MASKS = False
STAGES, FIRST_LABEL = one_stage.STAGES, one_stage.FIRST_LABEL


def build(settings: Settings) -> nn.Module:
    """torchvision's RetinaNet; anchors are 4, 5 and 6.3 strides wide, in three shapes."""
    pyramid = Pyramid(settings.features, settings.channels, "convolutions")
    sizes = [[round(4 * stride * 2 ** (i / 3)) for i in range(3)] for stride in pyramid.strides]
    anchors = Anchors(settings.extent, pyramid.strides, sizes, (0.5, 1.0, 2.0))
    head = RetinaNetHead(settings.channels, 9, settings.num_classes)
    # as in Swin's detectors; torchvision keeps 300
    return one_stage.build_one_stage(RetinaNet, settings, pyramid, anchors, head, detections_per_img=100)
