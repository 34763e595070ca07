"""Detectors: torchvision's heads on the feature pyramid of any timm backbone, a file for each method."""
