"""File locks that the kernel releases when their holder exits, however it exits."""

import fcntl
import os
from pathlib import Path
from typing import Self


class FileLock:
    """A lock on a file, held until `release` is called or the process exits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file that is locked; a duplicate of it in another process holds the lock, too."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def acquire(self, *, wait: bool = True, shared: bool = False) -> bool:
        """Take the lock.

        Args:
            wait: wait until it is free.
            shared: share it with others that take it as shared.

        Returns:
            False when another process holds it and `wait` is off.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path, *, shared: bool = False) -> bool:
    """Whether a process holds the lock. Needs no permission to write.

    Args:
        path: file of the lock; need not exist.
        shared: whether its holders share it: only an exclusive probe finds them. By default the probe is
            shared, so that two probes at the same time do not take each other for a holder.
    """
    # an exclusive lock on NFS needs a file that is open for writing
    mode = os.O_RDWR if shared and os.access(path, os.W_OK) else os.O_RDONLY
    try:
        descriptor = os.open(path, mode | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
