"""Checkpoints appear whole or not at all, and know each other in any folder."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import sync_folder

# `.last.ckpt.1234`: what process 1234 was writing
_UNFINISHED = re.compile(r"\..+\.ckpt\.(\d+)")
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file and puts the new one in its place when the disk has it.

    Whatever happens meanwhile, a checkpoint that was there is still there, whole.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; addresses such as s3:// are left to Lightning.

        Raises:
            OSError: the disk is full, cannot be written, ...; names the file.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(dict(checkpoint), path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(unfinished, "wb") as stream:
                _save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


class MovableCheckpoint(ModelCheckpoint):
    """Knows its files again when the run's folder was moved, or is called otherwise on another machine.

    Lightning would then forget which epoch was the best one, and take its own new file for an old one.
    """

    @property
    def state_key(self) -> str:
        """That of the base class, so that either reads what the other wrote."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The same file names in today's folder."""
        folder = Path(self.dirpath or "")

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in _PATHS if name in state_dict}
        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


class PeriodicCheckpoint(MovableCheckpoint):
    """Keeps a checkpoint of every n-th epoch, `epoch=0024.ckpt` and so on, beside the best and the last one.

    Args:
        every: epochs between two of them.

    Raises:
        UserError: that is less than 1.
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
        """Its own: that of the last epoch's checkpoint would be the same where `every` is 1."""
        return f"{type(self).__qualname__}{{'every': {self.every}}}"


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that are dead by now were writing; a run has one writer at a time."""
    for path in folder.iterdir():
        match = _UNFINISHED.fullmatch(path.name)
        if match and not _is_alive(int(match[1])):
            path.unlink(missing_ok=True)


class _Recorder:
    """A file that remembers why it could not be written: torch makes a RuntimeError of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._stream.flush()


def _save(checkpoint: Mapping[str, Any], stream: IO[bytes]) -> None:
    recorder = _Recorder(stream)
    try:
        torch.save(checkpoint, recorder)  # type: ignore[arg-type]
    except (RuntimeError, OSError):
        if recorder.error is not None:
            raise recorder.error from None
        raise


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # of an earlier process with this number: this one writes one file after the other
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
