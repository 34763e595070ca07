"""Image classification."""

from focal_lab.tasks.classification.task import Classification as Classification
