"""Checks before training that the disk has room for the checkpoints."""

import math
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from focal_lab.errors import UserError
from focal_lab.training.checkpoints.io import PeriodicCheckpoint

_MARGIN = 64 * 2**20  # curves, configuration, the file system's own


def checkpoint_bytes(module: nn.Module) -> int:
    """Size of one checkpoint: weights, buffers, a moving average if any, and AdamW's two moments."""
    state = sum(tensor.nbytes for tensor in module.state_dict().values())
    trained = sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
    return int(state + 2 * trained)


def checkpoints_kept(trainer: Any) -> int:
    """Number of checkpoints at the end; there is one more while a file is replaced."""
    epochs = trainer.max_epochs
    kept = 0
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, PeriodicCheckpoint):
            kept += math.ceil(max(epochs or 1, 1) / callback.every) if epochs != -1 else 1
        elif isinstance(callback, ModelCheckpoint):
            kept += max(1, callback.save_top_k) + bool(callback.save_last)
    return kept


class RoomForCheckpoints(Callback):
    """Refuses a training whose checkpoints do not fit on the disk; a URL such as s3:// is not checked."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the strategy divides the weights among processes, which must all ask for a sharded state."""
        count, root = checkpoints_kept(trainer), str(trainer.log_dir or trainer.default_root_dir)
        if stage != "fit" or not count or "://" in root or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = next(path for path in chain([Path(root)], Path(root).absolute().parents) if path.is_dir())
        each, free = checkpoint_bytes(pl_module), shutil.disk_usage(folder).free
        needed = (count + 1) * each + _MARGIN
        if needed > free:
            raise UserError(
                f"{count + 1} checkpoints of {_size(each)} need {_size(needed)}, and the disk of {folder} "
                f"has {_size(free)} left (free some space, or choose another folder)",
                key="trainer.default_root_dir",
            )


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
