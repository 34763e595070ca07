"""Which checkpoints of a finished run stay."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from focal_lab.errors import UserError

KINDS = ("best", "last")
CHECKPOINTS = "checkpoints"


def parse_keep(text: str, key: str = "--keep") -> frozenset[str]:
    """`best`, `last`, `best,last` or `none` as a set.

    Raises:
        UserError: anything else.
    """
    if text == "none":
        return frozenset()
    words = text.split(",")
    if not set(words) <= set(KINDS):
        raise UserError(f"{text!r} is unknown (use best, last, best,last or none)", key=key)
    return frozenset(words)


def checkpoints_to_prune(folder: Path, keep: Collection[str]) -> list[Path]:
    """The checkpoints of a finished run that need not stay.

    Args:
        folder: the run's.
        keep: `best`, `last`. What an interrupted attempt left always goes.
    """
    kinds = [kind for kind in (*KINDS, "stopped") if kind not in keep]
    paths = [folder / CHECKPOINTS / f"{kind}.ckpt" for kind in kinds]
    return [path for path in paths if path.exists()]


def prune_checkpoints(folder: Path, keep: Collection[str]) -> int:
    """Remove `checkpoints_to_prune`; the bytes that came free."""
    freed = 0
    for checkpoint in checkpoints_to_prune(folder, keep):
        with suppress(FileNotFoundError):
            freed += checkpoint.stat().st_size
            checkpoint.unlink()
    return freed
