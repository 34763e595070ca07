"""`history.json`: a run's curves, one point per validation. Standard library only: reports read it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focal_lab.utils.atomic_files import write_atomic

HISTORY_FILE = "history.json"
SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """The state after a validation.

    Attributes:
        epoch: epochs trained so far; a fraction where validation is more frequent.
        step: optimizer steps so far.
        values: `train/loss` (mean since the previous point), `lr` and the validation's metrics (`val/top1`);
            without those that are not finite.
    """

    epoch: float
    step: int
    values: dict[str, float]


def write_history(folder: Path, points: Sequence[Point]) -> None:
    """Replace the file atomically.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    raw = [{"epoch": point.epoch, "step": point.step, **point.values} for point in points]
    text = json.dumps({"schema": SCHEMA, "points": raw}, indent=0, allow_nan=False)
    write_atomic(folder / HISTORY_FILE, text + "\n")


def read_history(folder: Path) -> list[Point]:
    """The points of a run, in order; none if there is no readable file."""
    try:
        raw = json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8"))
        points = raw["points"] if raw["schema"] == SCHEMA else []
        return [_point(dict(point)) for point in points]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _point(raw: dict[str, float]) -> Point:
    epoch, step = float(raw.pop("epoch")), int(raw.pop("step"))
    return Point(epoch, step, {name: float(value) for name, value in raw.items() if math.isfinite(value)})
