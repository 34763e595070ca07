"""Removing runs and what is left of dead processes, so that nothing half removed looks whole."""

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.housekeeping.inventory import SWEEPS, Needs, is_running, size_of
from focal_lab.sweep.plan.manifest import PLANS
from focal_lab.sweep.plan.proposals import SEARCHES
from focal_lab.sweep.run_folder.outcome import State, read_outcome, run_folders
from focal_lab.sweep.run_folder.retention import CHECKPOINTS, checkpoints_to_prune
from focal_lab.utils.file_lock import LOCK_FILE, FileLock

_TRASH = re.compile(r"\.trash-.+-(?P<pid>\d+)$")
_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)$")
_ASIDE = re.compile(r".+\.corrupt-\d{8}-\d{6}(-\d+)?$")
# Outside a run's folder no lock tells that a writer on another machine, whose processes are not seen here,
# is at work; what it writes there takes less than a second.
_WRITTEN_SECONDS = 60.0


@contextmanager
def untrained(folder: Path) -> Iterator[None]:
    """While it lasts, nobody begins to train the run.

    Raises:
        UserError: some process trains it, or its folder is not ours to change.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        if not lock.acquire(wait=False):
            raise UserError(f"{folder.name} is being trained; stop the sweep first")
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be changed: {error.strerror}") from error
    finally:
        lock.release()


def remove_run(folder: Path) -> int:
    """Remove a run that nobody trains; the bytes that came free.

    It is renamed first: whoever is killed here leaves no run without its result.

    Raises:
        UserError: some process trains it, or it cannot be removed.
    """
    with untrained(folder):
        size = size_of(folder)
        trash = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
        shutil.rmtree(trash, ignore_errors=True)  # of a dead process that had our number
        folder.rename(trash)
        shutil.rmtree(trash)
    return size


@dataclass(frozen=True)
class Waste:
    """What can be removed, or was.

    Attributes:
        runs: folders of runs that no sweep needs and nobody trains.
        files: damaged ones that were set aside, temporary ones of dead writers, half removed runs.
        checkpoints: of finished runs that stay.
    """

    runs: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [*self.runs, *self.files, *self.checkpoints]

    @property
    def size(self) -> int:
        """Bytes that they take on the disk."""
        return sum(map(size_of, self.paths))


def find_waste(out: Path, needs: Needs, keep: Collection[str] | None) -> Waste:
    """What nobody needs.

    Args:
        out: folder of the runs.
        needs: who needs what.
        keep: checkpoints of finished runs that stay; None: all. The best one always stays where other runs
            start from it.
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
    """Remove it; what is gone, the bytes that came free, and why the rest is still there."""
    gone, freed, kept = Waste(), 0, []
    removals: list[tuple[list[Path], list[Path], Callable[[Path], int]]] = [
        (waste.files, gone.files, _remove_path),
        (waste.runs, gone.runs, remove_run),
        (waste.checkpoints, gone.checkpoints, _remove_checkpoint),
    ]
    for paths, removed, remove in removals:
        for path in paths:
            try:
                freed += remove(path)
            except UserError as error:
                kept.append(str(error))
            else:
                removed.append(path)
    return gone, freed, kept


def _remains_beside(out: Path) -> Iterator[Path]:
    for place in (out / SWEEPS, out / PLANS, *sorted((out / SEARCHES).glob("*"))):
        yield from _remains_in(place, _WRITTEN_SECONDS)


def _remove_checkpoint(path: Path) -> int:
    with untrained(path.parent.parent):
        return _remove_path(path)


def _remove_path(path: Path) -> int:
    """The bytes that came free; none when somebody else was first."""
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


def _remains_in(place: Path, seconds: float) -> Iterator[Path]:
    """Damaged files that were set aside, temporary files whose writers are dead, and half removed runs.

    Args:
        place: the folder.
        seconds: younger temporary files are taken for being written.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        for entry in entries:
            trash, temporary = _TRASH.match(entry.name), _TEMPORARY.match(entry.name)
            if trash:
                left = not _lives(trash["pid"])
            elif temporary and entry.is_file(follow_symlinks=False):
                old = time.time() - entry.stat().st_mtime >= seconds
                left = old and not _lives(temporary["pid"])
            else:
                left = _ASIDE.match(entry.name) is not None
            if left:
                yield Path(entry.path)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != "0"
