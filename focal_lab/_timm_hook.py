"""Registers the backbones with timm when, and only when, timm is imported.

Imports only modules that are built into Python: under `python -m focal_lab`, a file in the working directory
would still shadow others.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def register_with_timm() -> None:
    """Import `focal_lab.backbones.registry` now if timm is loaded, else right after it will be."""
    if "timm" in sys.modules:
        importlib.import_module("focal_lab.backbones.registry")
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


class _TimmFinder:
    """Waits until timm is imported: libraries also look for its spec only to see whether it is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "timm":
            return None
        import importlib.util

        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec("timm")
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            loader = spec.loader

            def exec_module(module: ModuleType) -> None:
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
                del loader.exec_module
                loader.exec_module(module)
                importlib.import_module("focal_lab.backbones.registry")

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
