"""Object detection and instance segmentation."""

from focal_lab.tasks.detection.task import Detection as Detection
