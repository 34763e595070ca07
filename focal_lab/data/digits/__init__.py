"""The embedded default: handwritten digits, alone and in scenes."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.data.digits.classification import DigitsClassification as DigitsClassification

_MODULES = {
    "DigitsClassification": "classification",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
