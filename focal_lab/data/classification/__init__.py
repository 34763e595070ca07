"""Data sets for image classification."""

from focal_lab.utils.lazy_imports import lazy_imports

# earlier configurations have this path
__getattr__ = lazy_imports(__name__, {"ClassificationDataModule": "data_module"})
