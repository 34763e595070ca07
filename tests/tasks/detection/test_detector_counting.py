"""What detectors come to, beside what the paper prints (tables 3 and 4, 1280 x 800, 80 classes)."""

import pytest
import torch

from focal_lab.backbones.counting import count_parameters
from focal_lab.tasks.detection.methods import METHODS, count_detector_gmacs
from focal_lab.tasks.detection.parts import Settings
from focal_lab.tasks.features import Features

SIZE = (800, 1280)
REGIONS = {"focal_windows": [15, 13, 9, 7]}


# The printed figures of Mask R-CNN with Focal-Tiny and Small cannot come from the backbones that RetinaNet's
# come from: Small has 102 GMACs more than Tiny there and 110 here, though the heads are the same.
@pytest.mark.parametrize(
    ("method", "backbone", "params", "gmacs", "tolerance"),
    [
        ("retinanet", "swin_tiny_patch4_window7_224", 38.5, 245, 0.02),
        ("retinanet", "focal_tiny", 39.4, 265, 0.02),
        ("retinanet", "focal_small", 61.7, 367, 0.02),
        ("retinanet", "focal_base", 100.8, 514, 0.02),
        ("mask_rcnn", "swin_tiny_patch4_window7_224", 47.8, 264, 0.02),
        ("mask_rcnn", "focal_tiny", 48.8, 291, 0.03),
        ("mask_rcnn", "focal_small", 71.2, 401, 0.05),
        ("mask_rcnn", "focal_base", 110.0, 533, 0.02),
    ],
)
def test_parameters_and_operations_are_the_papers(
    method: str, backbone: str, params: float, gmacs: float, tolerance: float
) -> None:
    options = {"img_size": SIZE} | (REGIONS if backbone.startswith("focal") else {})
    with torch.device("meta"):
        features = Features(backbone, options, None, METHODS[method].stages)
        settings = Settings(features, num_classes=80)
        detector = METHODS[method].build(settings)
    assert count_parameters(detector) / 1e6 == pytest.approx(params, rel=0.02)
    assert count_detector_gmacs(detector, SIZE) == pytest.approx(gmacs, rel=tolerance)
