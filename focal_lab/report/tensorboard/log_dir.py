"""The log directory that TensorBoard reads: links to the runs' event files beside generated ones."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from focal_lab.errors import UserError
from focal_lab.utils.file_lock import FileLock

# Suffix of generated files; other files in the directory are left alone.
SUFFIX = ".focal-lab"
# TensorBoard reads the files of a run in the order of their names, which begin with seconds since 1970.
FIRST, LAST = 0, 9_999_999_999


def event(value: Any, step: int = 0, time: float = 0.0) -> Event:
    """An event with one `Summary.Value`; `time` in seconds since 1970."""
    return Event(wall_time=time, step=step, summary=Summary(value=[value]))


def scalar(tag: str, value: float, step: int = 0, time: float = 0.0) -> Event:
    """A scalar in the form that Lightning's logger writes."""
    return event(Summary.Value(tag=tag, simple_value=value), step, time)


def write_events(stream: BinaryIO, events: Iterable[Event]) -> None:
    """Write an event file."""
    writer = RecordWriter(stream)
    for one in (Event(file_version="brain.Event:2"), *events):
        writer.write(one.SerializeToString(deterministic=True))


def digest(*values: object) -> str:
    """Twelve hexadecimal digits of the hash of some values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


class LogDir:
    """A log directory. Every file in it appears at once, so a process that writes may be killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: set[Path] = set()

    def link(self, run: str, target: Path) -> None:
        """Link a file into a run; the link is relative, so that the folder of the runs can be moved."""
        path = self._add(run, target.name)
        relative = os.path.relpath(target.parent.resolve() / target.name, path.parent.resolve())
        if not path.is_symlink() or os.readlink(path) != relative:
            path.unlink(missing_ok=True)
            path.symlink_to(relative)

    def write(self, run: str, events: Sequence[Event], position: int = FIRST) -> None:
        """Write events to a file of a run, FIRST or LAST among its files, unless it exists already."""
        key = digest([one.SerializeToString(deterministic=True) for one in events])
        self.write_lazily(run, key, lambda: events, position)

    def write_lazily(
        self, run: str, key: str, make: Callable[[], Sequence[Event]], position: int = FIRST
    ) -> None:
        """Like `write`, but the events are made only if there is no file with this key yet."""
        path = self._add(run, f"events.out.tfevents.{position:010d}.{key}{SUFFIX}")
        if path.exists():
            return
        # without "tfevents", by which TensorBoard would find it
        temporary = path.with_name(f".{key}{SUFFIX}")
        with open(temporary, "wb") as stream:
            write_events(stream, make())
        os.replace(temporary, path)

    def _add(self, run: str, name: str) -> Path:
        path = self.root / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._kept.add(path)
        return path

    def remove_stale(self) -> None:
        """Remove links and generated files that were not added, and empty folders."""
        for folder, _, names in os.walk(self.root, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path not in self._kept and (path.is_symlink() or path.name.endswith(SUFFIX)):
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                os.rmdir(folder)


@contextmanager
def updating(root: Path) -> Iterator[LogDir]:
    """A log directory to add everything to; what was added earlier, and not again, is removed on success.

    Raises:
        UserError: the directory cannot be written to.
    """
    log_dir = LogDir(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            yield log_dir
            log_dir.remove_stale()
    except OSError as error:
        raise UserError(f"cannot be written to: {error.strerror}", file=error.filename or root) from error
