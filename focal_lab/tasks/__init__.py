"""What is trained: one LightningModule per task."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.tasks.base import Task as Task
    from focal_lab.tasks.classification.task import Classification as Classification
    from focal_lab.tasks.detection.task import Detection as Detection
    from focal_lab.tasks.segmentation.task import Segmentation as Segmentation

_MODULES = {
    "Classification": "classification.task",
    "Detection": "detection.task",
    "Segmentation": "segmentation.task",
    "Task": "base",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
