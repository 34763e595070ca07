"""What lies in a folder of runs, and who needs it. No torch: thousands are listed at once."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.ablation.engine.locks import LOCK_FILE, is_locked
from focal_lab.ablation.manifest import manifest_path, read_manifest
from focal_lab.ablation.outcomes import State, read_outcome, run_folders
from focal_lab.ablation.search import SEARCHES
from focal_lab.errors import UserError, one_of

RUNNING = "running"
SWEEPS = "sweeps"


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        state: a State, or `running`.
        labels: factor -> level label, where a plan tells.
        age: seconds since its folder was last written to.
        size: bytes on the disk.
        sweeps: names of the sweeps that need it.
        reason: why there is no result.
    """

    run: str
    state: str
    task: str | None
    seed: int | None
    labels: dict[str, str]
    age: float
    size: int
    sweeps: tuple[str, ...]
    reason: str | None


@dataclass
class Needs:
    """Who needs which runs.

    Attributes:
        sweeps: run id -> sweeps, as they were run last.
        parents: runs whose checkpoint other runs start from.
        known: run id -> (task, seed, labels), of all plans.
    """

    sweeps: dict[str, list[str]] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)
    known: dict[str, tuple[str, int, dict[str, str]]] = field(default_factory=dict)


def read_needs(out: Path) -> Needs:
    """What the sweeps of a folder need, each in the way in which it was run last."""
    needs = Needs()
    for note in sorted((out / SWEEPS).glob("*.json")):
        record = _read(note)
        study = str(record.get("study"))
        wanted = {str(run): None for run in record.get("runs", [])}
        wanted |= {path.stem: None for path in (out / SEARCHES / study).glob("*.json")}
        path = manifest_path(out, study)
        try:
            runs = read_manifest(path).runs if path.is_file() else ()
        except UserError:
            runs = ()
        for run in runs:
            needs.known[run.id] = (run.task, run.seed, dict(run.cell.labels))
            wanted[run.id] = None
            if run.needs is not None:
                wanted[run.needs] = None
                needs.parents.add(run.needs)
        for name in wanted:
            needs.sweeps.setdefault(name, []).append(note.stem)
    return needs


def take_inventory(out: Path, needs: Needs) -> list[Entry]:
    """All runs of a folder, by id."""
    now = time.time()
    return [_entry(folder, needs, now) for folder in sorted(run_folders(out), key=lambda folder: folder.name)]


def find_runs(out: Path, names: list[str]) -> list[Path]:
    """The folders of runs that are named by their ids or the beginnings of these.

    Raises:
        UserError: none or several begin so.
    """
    there = {folder.name: folder for folder in run_folders(out)}
    found = []
    for name in names:
        fitting = [name] if name in there else sorted(run for run in there if run.startswith(name))
        if len(fitting) > 1:
            raise UserError(f"{name} is the beginning of several runs (use {one_of(fitting[:5])})")
        if not fitting:
            raise UserError(f"there is no run {name} in {out} (focal-lab runs --out {out} lists them)")
        found.append(there[fitting[0]])
    return found


def size_of(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += size_of(Path(entry.path))
            else:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def is_running(folder: Path) -> bool:
    """Whether some process trains the run now."""
    return is_locked(folder / LOCK_FILE)


def _entry(folder: Path, needs: Needs, now: float) -> Entry:
    outcome = read_outcome(folder)
    task, seed, labels = needs.known.get(folder.name, (None, None, {}))
    record = outcome.result or outcome.failure
    if record is not None:
        task, seed = record.task, record.seed
    state = str(outcome.state)
    if outcome.state is not State.FINISHED and is_running(folder):
        state = RUNNING
    return Entry(
        run=folder.name,
        state=state,
        task=task,
        seed=seed,
        labels=labels,
        age=max(0.0, now - folder.stat().st_mtime),
        size=size_of(folder),
        sweeps=tuple(needs.sweeps.get(folder.name, ())),
        reason=None if state == RUNNING else outcome.reason,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}
