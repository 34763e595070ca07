"""Which checkpoints of a finished run are kept."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import BEST_CHECKPOINT, LAST_CHECKPOINT, STOPPED_CHECKPOINT

_KINDS = {"best": BEST_CHECKPOINT, "last": LAST_CHECKPOINT}


def parse_keep(text: str, key: str = "--keep") -> frozenset[str]:
    """`best`, `last`, `best,last` or `none` as a set.

    Raises:
        UserError: anything else.
    """
    words = [] if text == "none" else text.split(",")
    if not _KINDS.keys() >= set(words):
        raise UserError(f"{text!r} is unknown (use best, last, best,last or none)", key=key)
    return frozenset(words)


def checkpoints_to_prune(folder: Path, keep: Collection[str]) -> list[Path]:
    """Checkpoints of a finished run that are not kept; those of an interrupted attempt never are."""
    names = [name for kind, name in _KINDS.items() if kind not in keep]
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
