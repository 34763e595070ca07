"""Modules that have moved, for class paths in old configurations and for users' own imports of them.

Imports nothing that is not built into Python, for the reason that `_timm_hook` gives.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# old module -> where its classes are now
MOVED = {
    # pickles of whole models name these two
    "focal_lab.backbones.weights.fit": "focal_lab.backbones.weights.fit_weights",
    "focal_lab.backbones.weights.load_hook": "focal_lab.backbones.weights.fit_weights",
    "focal_lab.data.cifar": "focal_lab.data",
    "focal_lab.data.coco": "focal_lab.data",
    "focal_lab.data.digits.detection": "focal_lab.data",
    "focal_lab.data.digits.segmentation": "focal_lab.data",
    "focal_lab.data.digits_detection": "focal_lab.data",
    "focal_lab.data.digits_segmentation": "focal_lab.data",
    "focal_lab.data.fashion_mnist": "focal_lab.data",
    "focal_lab.data.image_folder": "focal_lab.data",
    "focal_lab.data.segmentation_folder": "focal_lab.data",
    "focal_lab.tasks.callbacks": "focal_lab.training.callbacks",
    "focal_lab.tasks.checkpoint_io": "focal_lab.training",
    "focal_lab.training.cli": "focal_lab.training.lightning_cli",
}


class _MovedModules:
    """Finds an old module, as one that takes every attribute from where it is now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """An ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        now = MOVED[module.__name__]
        module.__getattr__ = lambda name: getattr(importlib.import_module(now), name)  # type: ignore[method-assign]


def find_moved_modules() -> None:
    """Look for old modules where no module of that name is found."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
