"""Data sets for image classification."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.data.classification.data_module import ClassificationDataModule as ClassificationDataModule

_MODULES = {
    "ClassificationDataModule": "data_module",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
