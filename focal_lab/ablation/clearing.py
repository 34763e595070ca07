"""Removing runs and what is left of dead processes, so that nothing half removed looks whole."""

import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from focal_lab.ablation.inventory import Needs, is_running, size_of
from focal_lab.ablation.keep import prune_checkpoints
from focal_lab.ablation.outcomes import State, read_outcome, run_folders
from focal_lab.errors import UserError

_TRASH = ".trash-"
_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)$")
_ASIDE = re.compile(r".+\.corrupt-\d{8}-\d{6}(-\d+)?$")
# A writer on another machine may still be at work on a file of an unknown process.
_LEFT_SECONDS = 3600.0


def remove_run(folder: Path) -> int:
    """Remove a run that nobody trains; the bytes that came free.

    Raises:
        UserError: some process trains it.
    """
    if is_running(folder):
        raise UserError(f"{folder.name} is being trained; stop the sweep first")
    size = size_of(folder)
    trash = folder.with_name(f"{_TRASH}{folder.name}-{os.getpid()}")
    folder.rename(trash)
    shutil.rmtree(trash)
    return size


def unneeded(out: Path, needs: Needs) -> list[Path]:
    """Runs that no sweep needs and nobody trains."""
    folders = [folder for folder in run_folders(out) if folder.name not in needs.sweeps]
    return sorted(folder for folder in folders if not is_running(folder))


def remains(out: Path) -> Iterator[Path]:
    """Damaged files that were set aside, temporary files whose writers are dead, and half removed runs."""
    places = [out, *run_folders(out)]
    places += [folder / "checkpoints" for folder in places[1:]]
    places += [out / name for name in ("sweeps", "plans")] + list((out / "searches").glob("*"))
    for place in places:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(_TRASH) or _ASIDE.match(entry.name) or _is_left(entry):
                    yield Path(entry.path)


def remove_remains(path: Path) -> int:
    """Remove one of these; the bytes that came free."""
    if path.is_dir():
        size = size_of(path)
        shutil.rmtree(path)
    else:
        size = path.stat().st_size
        path.unlink(missing_ok=True)
    return size


def prune_finished(out: Path, keep: Collection[str], needs: Needs) -> int:
    """Remove checkpoints of finished runs that need not stay; the bytes that came free.

    The best checkpoint stays where runs of other tasks start from it.
    """
    freed = 0
    for folder in run_folders(out):
        if read_outcome(folder).state is State.FINISHED and not is_running(folder):
            freed += prune_checkpoints(folder, {*keep, *({"best"} if folder.name in needs.parents else ())})
    return freed


def _is_left(entry: "os.DirEntry[str]") -> bool:
    found = _LEFT.match(entry.name)
    if found is None or entry.is_dir():
        return False
    if Path(f"/proc/{found['pid']}").exists():
        return False
    return time.time() - entry.stat().st_mtime > (0.0 if Path("/proc/self").exists() else _LEFT_SECONDS)
