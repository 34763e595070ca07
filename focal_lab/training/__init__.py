"""How it is trained: LightningCLI, callbacks, checkpoints, exact resumption."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.training.checkpoints.io import PeriodicCheckpoint as PeriodicCheckpoint

_MODULES = {
    "PeriodicCheckpoint": "checkpoints.io",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
