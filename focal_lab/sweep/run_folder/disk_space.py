"""Checks the free disk space before a sweep, and recognises errors caused by a full disk."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.utils.units import size

# Bytes below which a disk counts as full: a micro model's checkpoints and results need a few of them.
_FLOOR = 64 * 2**20
_PROBE = 64 * 2**10
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_MESSAGES = ("No space left on device", "Disk quota exceeded")
# messages of torch.save when the file cannot grow
_TORCH_MESSAGES = ("PytorchStreamWriter failed", "unexpected pos")


def check_room(out: Path) -> None:
    """Check that results can be written, before anything is trained.

    Raises:
        UserError: the folder cannot be created or written to, or its disk is full.
    """
    probe = out / f".writable.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as stream:
            stream.write(bytes(_PROBE))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        full = disk_full(out, error)
        if full is None:
            why = f"cannot write to {out}: {error.strerror}; choose another folder"
            raise UserError(why, key="--out") from error
        raise UserError(f"{full}; free some space, or choose another folder", key="--out") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    if free_space(out)[0] < _FLOOR:
        raise UserError(f"{_sentence(out)}; free some space, or choose another folder", key="--out")


def disk_full(out: Path, error: BaseException | str | None = None) -> str | None:
    """A sentence for the user if an error means that the disk of `out` is full; None if it does not.

    Args:
        out: folder of the runs.
        error: an exception, looked at with its causes, or the message of another process.
    """
    full = False
    if isinstance(error, str):
        full = any(message in error for message in _FULL_MESSAGES) or (
            any(message in error for message in _TORCH_MESSAGES) and free_space(out)[0] < _FLOOR
        )
    else:
        while error is not None and not full:
            full = isinstance(error, OSError) and error.errno in _FULL
            error = error.__cause__ or error.__context__
    return _sentence(out) if full else None


def _sentence(out: Path) -> str:
    free, total = free_space(out)
    path = out.resolve()
    mount = next(folder for folder in (path, *path.parents) if folder.is_mount())
    return f"the disk of {out} (mounted on {mount}) is full: {size(free)} of {size(total)} free"


def free_space(out: Path) -> tuple[int, int]:
    """Free and total bytes on the disk of a folder, or of the nearest parent that exists."""
    while not out.exists() and out != out.parent:
        out = out.parent
    usage = shutil.disk_usage(out)
    return usage.free, usage.total
