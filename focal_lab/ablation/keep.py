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


def prune_checkpoints(folder: Path, keep: Collection[str]) -> int:
    """Remove the checkpoints of a finished run that need not stay; the bytes that came free.

    Args:
        folder: the run's.
        keep: `best`, `last`. What an interrupted attempt left always goes.
    """
    freed = 0
    for kind in (*KINDS, "stopped"):
        checkpoint = folder / CHECKPOINTS / f"{kind}.ckpt"
        if kind not in keep:
            with suppress(FileNotFoundError):
                freed += checkpoint.stat().st_size
                checkpoint.unlink()
    return freed
