"""Lists the runs of a folder, and which sweeps need them. Imports no torch: thousands are listed at once."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from focal_lab.command_line import command
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.engine.conflicts import is_present
from focal_lab.sweep.plan.manifest import all_manifests, read_manifest
from focal_lab.sweep.plan.proposals import SEARCHES
from focal_lab.sweep.plan.recall import SWEEPS, read_record
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import is_running, run_folders
from focal_lab.sweep.run_folder.outcome import State, read_outcome

RUNNING = "running"


@dataclass(frozen=True)
class RunEntry:
    """One run in the list.

    Attributes:
        state: a State, or `running`.
        labels: factor -> level label, if a plan has the run.
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
    """Which runs are needed.

    Attributes:
        sweeps: run ID -> sweeps, as they were last started.
        parents: runs from whose checkpoint other runs start.
        known: run ID -> (task, seed, labels), of all plans.
        doubts: damaged files that should say what a sweep needs, with what is wrong.
    """

    sweeps: dict[str, list[str]] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)
    known: dict[str, tuple[str, int, dict[str, str]]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def read_needs(out: Path) -> Needs:
    """The runs that the sweeps of a folder need: each as last started, and as trained now."""
    needs, plans, wrong = Needs(), dict[str, Sequence[Run]](), dict[str, str]()
    names: dict[str, set[str]] = {}

    def add(sweep: str, runs: Iterable[str]) -> None:
        for run in runs:
            names.setdefault(run, set()).add(sweep)

    for path in all_manifests(out):
        try:
            manifest = read_manifest(path, to_train=False)
        except UserError as error:
            wrong[path.stem] = str(error)
            continue
        plans[path.stem] = manifest.runs
        for run in manifest.runs:
            needs.known[run.id] = (run.task, run.seed, dict(run.cell.labels))
            if run.needs is not None:
                needs.parents.add(run.needs)
        if is_present(path.stem, out):
            add(manifest.sweep, _with_parents(manifest.runs))
    for note in sorted((out / SWEEPS).glob("*.json")):
        record = read_record(note)
        study, runs = record.get("study"), record.get("runs")
        if study in wrong:
            needs.doubts.append(wrong[study])
        elif study not in plans and runs is None:
            needs.doubts.append(f"{note}: is damaged; run the sweep again, which rewrites it")
        proposed = [] if study is None else [path.stem for path in (out / SEARCHES / study).glob("*.json")]
        add(note.stem, [*(runs or ()), *proposed, *_with_parents(plans.get(study or "", ()))])
    needs.sweeps = {run: sorted(sweeps) for run, sweeps in names.items()}
    return needs


def _with_parents(runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        yield run.id
        if run.needs is not None:
            yield run.needs


def take_inventory(out: Path, needs: Needs) -> list[RunEntry]:
    """All runs of a folder, by ID."""
    now = time.time()
    found = []
    for folder in sorted(run_folders(out), key=lambda folder: folder.name):
        outcome = read_outcome(folder)
        task, seed, labels = needs.known.get(folder.name, (None, None, {}))
        record = outcome.result or outcome.failure
        if record is not None:
            task, seed = record.task, record.seed
        running = outcome.state is not State.FINISHED and is_running(folder)
        with suppress(FileNotFoundError):  # it has just been removed
            entry = RunEntry(
                run=folder.name,
                state=RUNNING if running else str(outcome.state),
                task=task,
                seed=seed,
                labels=labels,
                age=max(0.0, now - folder.stat().st_mtime),
                size=size_of(folder),
                sweeps=tuple(needs.sweeps.get(folder.name, ())),
                reason=None if running else outcome.reason,
            )
            found.append(entry)
    return found


def find_runs(out: Path, names: Iterable[str]) -> list[Path]:
    """The folders of runs, named by their IDs or prefixes of these; each folder once.

    Raises:
        UserError: no run has that prefix, or several have it.
    """
    there = {folder.name: folder for folder in run_folders(out)}
    found: dict[Path, None] = {}
    for name in names:
        fitting = [name] if name in there else sorted(run for run in there if name and run.startswith(name))
        if len(fitting) > 1:
            shown = [*fitting[:5], *(["others"] if len(fitting) > 5 else [])]
            raise UserError(f"{name} matches {len(fitting)} runs (use {one_of(shown)})")
        if not fitting:
            raise UserError(
                f"there is no run {name or repr(name)} in {out} ({command('runs', '--out', out)} lists them)"
            )
        found[there[fitting[0]]] = None
    return list(found)


def size_of(path: Path | str) -> int:
    """Bytes on disk of a file or folder; files removed meanwhile count as 0."""
    try:
        with os.scandir(path) as entries:
            return sum(_size_of_entry(entry) for entry in entries)
    except NotADirectoryError:
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _size_of_entry(entry: "os.DirEntry[str]") -> int:
    try:
        if entry.is_dir(follow_symlinks=False):
            return size_of(entry.path)
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0
