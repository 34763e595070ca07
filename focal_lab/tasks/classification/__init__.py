"""Image classification."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.tasks.classification.task import Classification as Classification

_MODULES = {
    "Classification": "task",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
