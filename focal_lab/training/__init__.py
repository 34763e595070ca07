"""Training: LightningCLI, callbacks, checkpoints, exact resume."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.training.checkpoints.io import AtomicCheckpointIO as AtomicCheckpointIO
    from focal_lab.training.checkpoints.io import MovableCheckpoint as MovableCheckpoint
    from focal_lab.training.checkpoints.io import PeriodicCheckpoint as PeriodicCheckpoint

_MODULES = {
    "AtomicCheckpointIO": "checkpoints.io",
    "MovableCheckpoint": "checkpoints.io",
    "PeriodicCheckpoint": "checkpoints.io",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
