"""Checkpoints that are replaced atomically, survive a move of their folder, and fit on the disk."""

import math
import os
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import is_alive, sync_folder

# Followed by the writer's process ID; a name in which Lightning finds no number of an hpc_ckpt_N.ckpt.
UNFINISHED = ".unfinished."
_MARGIN = 64 * 2**20  # curves, configuration, the file system's own
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a new file, syncs and renames it, so that the old checkpoint stays complete until then.

    Ours, because Lightning's local writing renames without fsync, from the system's temporary folder. Files
    that killed processes left unfinished are removed.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; URLs such as s3:// are left to Lightning.

        Raises:
            OSError: the disk is full, not writable, ...; names the file.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(dict(checkpoint), path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}")
        try:
            with open(unfinished, "wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(unfinished, path)
        except BaseException as error:
            unfinished.unlink(missing_ok=True)
            cause = error if isinstance(error, OSError) else error.__context__  # torch raises a RuntimeError
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise
        sync_folder(path.parent)


class MovableCheckpoint(ModelCheckpoint):
    """Recognises its files when the run's folder was moved or has another path on another machine.

    Lightning would forget which epoch was the best, and mistake its own new file for an old one.
    """

    @property
    def state_key(self) -> str:
        """The base class's key, so that each can read the other's state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the file names, in the current folder."""
        folder = Path(self.dirpath or "")

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in _PATHS if name in state_dict}
        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


class PeriodicCheckpoint(MovableCheckpoint):
    """Keeps a checkpoint of every n-th epoch, `epoch=0024.ckpt` and so on, beside the best and the last one.

    Args:
        every: n.

    Raises:
        UserError: it is less than 1.
    """

    def __init__(self, every: int = 25) -> None:
        if every < 1:
            raise UserError(f"{every} is not 1 or more", key="trainer.callbacks.every")
        super().__init__(
            filename="{epoch:04d}",
            every_n_epochs=every,
            save_top_k=-1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.every = every

    @property
    def state_key(self) -> str:
        """Its own key: that of the last epoch's checkpoint would be the same for `every=1`."""
        return f"{type(self).__qualname__}{{'every': {self.every}}}"


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{UNFINISHED}*"):
        process = path.name.removeprefix(UNFINISHED)
        if process.isdecimal() and not is_alive(process):
            path.unlink(missing_ok=True)


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
