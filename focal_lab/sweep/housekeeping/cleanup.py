"""Removes runs and leftovers of killed processes; a half-removed run never looks complete."""

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.housekeeping.inventory import Needs, size_of
from focal_lab.sweep.plan.manifest import PLANS
from focal_lab.sweep.plan.proposals import SEARCHES
from focal_lab.sweep.plan.recall import SWEEPS
from focal_lab.sweep.run_folder.layout import (
    CHECKPOINTS,
    checkpoints_to_prune,
    is_running,
    run_folders,
    run_lock,
)
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.utils.atomic_files import is_alive

_TRASH = re.compile(r"\.trash-.+-(?P<pid>\d+)$")
_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)$")
_ASIDE = re.compile(r".+\.corrupt-\d{8}-\d{6}(-\d+)?$")
# Outside run folders no lock shows that a process on another machine is writing. A file is written there in
# less than a second.
_WRITTEN_SECONDS = 60.0


@contextmanager
def untrained(folder: Path) -> Iterator[None]:
    """Context in which no process can start to train the run.

    Raises:
        UserError: the run is being trained, or its folder cannot be changed.
    """
    lock = run_lock(folder)
    try:
        if not lock.acquire(wait=False):
            raise UserError(f"{folder.name} is being trained; stop the sweep first")
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be changed: {error.strerror}") from error
    finally:
        lock.release()


def remove_run(folder: Path) -> int:
    """Remove a run, renaming it first, so that a kill leaves no run without its result.

    Returns:
        The bytes freed.

    Raises:
        UserError: the run is being trained, or cannot be removed.
    """
    with untrained(folder):
        size = size_of(folder)
        trash = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
        shutil.rmtree(trash, ignore_errors=True)  # of an earlier process with our ID
        folder.rename(trash)
        shutil.rmtree(trash)
    return size


@dataclass(frozen=True)
class Waste:
    """What can be removed, or was: runs that no sweep needs, damaged and temporary files, checkpoints of runs
    that are kept."""

    runs: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """All bytes."""
        return [*self.runs, *self.files, *self.checkpoints]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(map(size_of, self.paths))


def find_waste(out: Path, needs: Needs, keep: Collection[str] | None) -> Waste:
    """Find what no sweep needs.

    Args:
        out: folder of the runs.
        needs: what the sweeps need.
        keep: checkpoints of finished runs to keep; None for all. The best one of a run from which others
            start is always kept.
    """
    waste = Waste(files=[*_remains_in(out, _WRITTEN_SECONDS), *_remains_beside(out)])
    for folder in sorted(run_folders(out)):
        if is_running(folder):
            continue
        if folder.name not in needs.sweeps:
            waste.runs.append(folder)
            continue
        waste.files.extend([*_remains_in(folder, 0.0), *_remains_in(folder / CHECKPOINTS, 0.0)])
        if keep is not None:
            stay = {*keep, "best"} if folder.name in needs.parents else keep
            useless = checkpoints_to_prune(folder, stay)
            if useless and read_outcome(folder).state is State.FINISHED:
                waste.checkpoints.extend(useless)
    return waste


def remove_waste(waste: Waste) -> tuple[Waste, int, list[str]]:
    """Remove it; returns what was removed, the bytes freed, and why the rest could not be."""
    done, freed, kept = Waste(), 0, []
    removals: list[tuple[list[Path], list[Path], Callable[[Path], int]]] = [
        (waste.files, done.files, _remove_path),
        (waste.runs, done.runs, remove_run),
        (waste.checkpoints, done.checkpoints, _remove_checkpoint),
    ]
    for paths, removed, remove in removals:
        for path in paths:
            try:
                freed += remove(path)
            except UserError as error:
                kept.append(str(error))
            else:
                removed.append(path)
    return done, freed, kept


def _remains_beside(out: Path) -> Iterator[Path]:
    for folder in (out / SWEEPS, out / PLANS, *sorted((out / SEARCHES).glob("*"))):
        yield from _remains_in(folder, _WRITTEN_SECONDS)


def _remove_checkpoint(path: Path) -> int:
    with untrained(path.parent.parent):
        return _remove_path(path)


def _remove_path(path: Path) -> int:
    """Returns the bytes freed; 0 if another process was first."""
    size = size_of(path)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}") from error
    return size


def _remains_in(folder: Path, seconds: float) -> Iterator[Path]:
    """Damaged files that were set aside, temporary files whose writers have exited, and half removed runs.

    Temporary files younger than this many seconds may still be written.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            trash, temporary = _TRASH.match(entry.name), _TEMPORARY.match(entry.name)
            if trash:
                left = not is_alive(trash["pid"])
            elif temporary and entry.is_file(follow_symlinks=False):
                old = time.time() - entry.stat().st_mtime >= seconds
                left = old and not is_alive(temporary["pid"])
            else:
                left = _ASIDE.match(entry.name) is not None
            if left:
                yield Path(entry.path)
