"""Locks that the kernel releases when their holder dies, however it dies."""

import fcntl
import os
from pathlib import Path
from typing import Self

LOCK_FILE = "lock"


class FileLock:
    """An exclusive lock on a file, held while the process lives and `release` has not been called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file that is locked; a copy of it in another process holds the lock, too."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def acquire(self, *, wait: bool = True, shared: bool = False) -> bool:
        """Take the lock; False when somebody else holds it and `wait` is off.

        Args:
            wait: for as long as it takes.
            shared: together with others who share it.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock right now."""
    if not path.exists():
        return False
    lock = FileLock(path)
    free = lock.acquire(wait=False)
    lock.release()
    return not free
