"""Semantic segmentation."""

from focal_lab.tasks.segmentation.task import Segmentation as Segmentation
