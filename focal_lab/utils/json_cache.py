"""Caches in JSON files beside the runs: step times, run IDs. Losing one only costs time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.file_lock import FileLock

_SCHEMA = 1
_MOST_ENTRIES = 20_000


def read_cache(path: Path) -> dict[str, Any]:
    """The entries of a file; empty if it is missing or damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    valid = isinstance(raw, dict) and raw.get("schema") == _SCHEMA and isinstance(raw.get("entries"), dict)
    return dict(raw["entries"]) if valid else {}


def add_to_cache(path: Path, found: Mapping[str, Any]) -> None:
    """Add entries, the latest ones last; does nothing where the file cannot be written."""
    if not found:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            entries = {key: value for key, value in read_cache(path).items() if key not in found} | dict(
                found
            )
            latest = dict(list(entries.items())[-_MOST_ENTRIES:])
            write_atomic(path, json.dumps({"schema": _SCHEMA, "entries": latest}, indent=0) + "\n")
    except OSError:
        return
