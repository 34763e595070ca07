"""Object detection and instance segmentation."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.tasks.detection.task import Detection as Detection

_MODULES = {
    "Detection": "task",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
