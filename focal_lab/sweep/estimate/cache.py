"""What was found out once and is worth keeping, in a file beside the runs; losing it loses only time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.file_lock import FileLock

COUNTS_FILE = "counts.json"
MEASURED_FILE = "measured.json"
SCHEMA = 1
_MOST_ENTRIES = 20_000


def recall(path: Path) -> dict[str, Any]:
    """What a file holds; empty if there is none or it is damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or not isinstance(raw.get("entries"), dict):
        return {}
    entries: dict[str, Any] = raw["entries"]
    return entries


def keep(path: Path, found: Mapping[str, Any]) -> None:
    """Add to a file, the latest ones last; where it cannot be written, nothing happens."""
    if not found:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            entries = {key: value for key, value in recall(path).items() if key not in found} | dict(found)
            latest = dict(list(entries.items())[-_MOST_ENTRIES:])
            write_atomic(path, json.dumps({"schema": SCHEMA, "entries": latest}, indent=0) + "\n")
    except OSError:
        return
