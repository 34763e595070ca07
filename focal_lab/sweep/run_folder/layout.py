"""Files in a run's folder, `<out>/<run ID>/`: names, the lock that is held in training, kept checkpoints."""

import os
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from focal_lab.training.checkpoints import BEST_CHECKPOINT as BEST_CHECKPOINT
from focal_lab.training.checkpoints import LAST_CHECKPOINT as LAST_CHECKPOINT
from focal_lab.training.checkpoints import STOPPED_CHECKPOINT as STOPPED_CHECKPOINT
from focal_lab.training.predictions_file import PREDICTIONS_FILE as PREDICTIONS_FILE
from focal_lab.utils.file_lock import FileLock, is_locked

CONFIG_FILE = "config.yaml"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"
CHECKPOINTS = BEST_CHECKPOINT.parent.name
_KEPT_KINDS = {"best": BEST_CHECKPOINT, "last": LAST_CHECKPOINT}
_RUN_FILES = frozenset({RESULT_FILE, FAILURE_FILE, CONFIG_FILE})


def run_folders(out: Path) -> Iterator[Path]:
    """The folders of the runs in `out`, unordered; none if `out` does not exist.

    Hidden folders are skipped: a run that is being removed is called `.trash-...`.
    """
    try:
        entries = os.scandir(out)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir() and _is_run(entry.path):
                yield Path(entry.path)


def _is_run(folder: str) -> bool:
    try:
        return not _RUN_FILES.isdisjoint(os.listdir(folder))
    except FileNotFoundError:  # it has just been removed
        return False


def run_lock(folder: Path) -> FileLock:
    """The lock that a command holds while it trains the run, changes its files, or removes it."""
    return FileLock(folder / LOCK_FILE)


def is_running(folder: Path) -> bool:
    """Whether a process trains the run now."""
    return is_locked(folder / LOCK_FILE)


def has_result(folder: Path | str) -> bool:
    """Whether the run has finished; its result may be damaged."""
    return os.path.exists(f"{folder}/{RESULT_FILE}")  # half the time of a path's


def log_file(folder: Path, rank: int = 0) -> Path:
    """Output of one process of a run; that of the first one is the run's log."""
    return folder / (LOG_FILE if rank == 0 else f"log-rank{rank}.txt")


def last_lines(folder: Path) -> list[str]:
    """The last 20 lines of a run's log."""
    try:
        with open(folder / LOG_FILE, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 16384))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    # not splitlines(): it also splits at \r, with which a progress bar redraws its line
    return text.removesuffix("\n").split("\n")[-20:] if text else []


def kept_kinds(text: str) -> frozenset[str]:
    """The type of the option `--keep`: `best`, `last`, `best,last` or `none` as a set."""
    words = [] if text == "none" else text.split(",")
    if not _KEPT_KINDS.keys() >= set(words):
        raise ArgumentTypeError(f"{text!r} is unknown (use best, last, best,last or none)")
    return frozenset(words)


def checkpoints_to_prune(folder: Path, keep: Collection[str]) -> list[Path]:
    """Checkpoints of a finished run that are not kept; those of an interrupted attempt never are."""
    names = [name for kind, name in _KEPT_KINDS.items() if kind not in keep]
    paths = [folder / name for name in (*names, STOPPED_CHECKPOINT)]
    return [path for path in paths if path.exists()]


def prune_checkpoints(folder: Path, keep: Collection[str]) -> int:
    """Remove `checkpoints_to_prune`; returns the bytes freed."""
    freed = 0
    for checkpoint in checkpoints_to_prune(folder, keep):
        with suppress(FileNotFoundError):
            freed += checkpoint.stat().st_size
            checkpoint.unlink()
    return freed
