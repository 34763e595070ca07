"""What TensorBoard shows, sweep by sweep: which runs, and what they are called."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import command
from focal_lab.errors import UserError
from focal_lab.report.tensorboard.names import Names, file_name
from focal_lab.sweep.plan.manifest import manifest_path, read_manifest
from focal_lab.sweep.run_folder.outcome import run_folders

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

OTHERS = "other runs"
# beside the runs: what is made here
FOLDER = "tensorboard"


@dataclass(frozen=True)
class ShownRun:
    """A run under one sweep.

    Attributes:
        id: its folder in `out`.
        name: what it is called here: its cell, seed, and, where the sweep has several, task.
        cell: labels of its cell in a row.
        factors: factor -> level label.
        task: None where nothing tells.
        seed: None where nothing tells.
    """

    id: str
    name: str
    cell: str
    factors: dict[str, str]
    task: str | None
    seed: int | None


@dataclass(frozen=True)
class ShownSweep:
    """A sweep, or the runs that belong to none.

    Attributes:
        name: of its folder.
        runs: those that have begun.
        plan: what its table is made from; None where there is no table.
    """

    name: str
    runs: tuple[ShownRun, ...]
    plan: "Plan | None"


class Sweeps:
    """The sweeps of a folder of runs, read again and again while they grow.

    Args:
        out: the folder of the runs.
        wanted: sweep files or their names; none: all sweeps that were run in `out`, and runs of no sweep.

    Attributes:
        doubts: what could not be shown and why; each once.

    Raises:
        UserError: there are no runs, or no such sweep.
    """

    def __init__(self, out: Path, wanted: Sequence[str] = ()) -> None:
        from focal_lab.sweep.spec.sweep_file import find_sweep

        self.out = out
        self.doubts: dict[str, None] = {}
        self._wanted = [find_sweep(name) for name in dict.fromkeys(wanted)]
        self._plans: dict[Path, tuple[object, Plan]] = {}
        if out.exists() and not out.is_dir():
            raise UserError("is not a folder", file=out)
        if next(run_folders(out), None) is None:
            state = "holds no runs yet" if out.exists() else "does not exist"
            train = command("sweep", "sweeps/window_size.yaml", "--out", out)
            raise UserError(f"{state} (train some: {train})", file=out)

    def read(self) -> list[ShownSweep]:
        """What there is now.

        Raises:
            UserError: a sweep that was asked for is wrong, or none of its runs has begun.
        """
        there = {folder.name for folder in run_folders(self.out)}
        if self._wanted:
            return [self._asked_for(path, there) for path in self._wanted]
        noted = [self._noted(note, there) for note in sorted((self.out / "sweeps").glob("*.json"))]
        sweeps = [sweep for sweep in noted if sweep is not None and sweep.runs]
        rest = there - {run.id for sweep in sweeps for run in sweep.runs}
        return [*sweeps, *([_others(self.out, rest)] if rest else [])]

    def _asked_for(self, path: Path, there: set[str]) -> ShownSweep:
        plan = self._plan(path)
        sweep = _from_plan(plan, there)
        if not sweep.runs:
            raise UserError(f"has no runs in {self.out} yet ({plan.command(self.out)})", file=path)
        return sweep

    def _noted(self, note: Path, there: set[str]) -> ShownSweep | None:
        """A sweep that was run here, from its file, or else from what its runs were planned by."""
        try:
            raw = json.loads(note.read_text(encoding="utf-8"))
            path, study = Path(raw["path"]), str(raw["study"])
        except (OSError, ValueError, KeyError, TypeError):
            self.doubts[f"{note}: is damaged; start the sweep once more, which writes it again"] = None
            return None
        try:
            if not path.is_file():
                raise UserError("the sweep file is gone", file=path)
            sweep = _from_plan(self._plan(path), there)
            if sweep.runs:
                return sweep
            raise UserError("plans other runs than those that were trained", file=path)
        except UserError as error:
            self.doubts[f"{note.stem} is shown without its table: {error}"] = None
        try:
            runs = read_manifest(manifest_path(self.out, study), to_train=False).runs
        except UserError as error:
            self.doubts[str(error)] = None
            return None
        return ShownSweep(file_name(note.stem), _shown(runs, there), None)

    def _plan(self, path: Path) -> "Plan":
        from focal_lab.sweep.plan.plan import recall_plan, with_proposals

        note = self.out / "sweeps" / f"{path.stem}.json"
        written = (path.stat().st_mtime_ns, note.stat().st_mtime_ns if note.exists() else None)
        known = self._plans.get(path)
        if known is None or known[0] != written:
            known = self._plans[path] = (written, recall_plan(path, self.out))
        return with_proposals(known[1], self.out)


def fingerprint(out: Path) -> object:
    """Changes whenever a run, or a record of one, comes or goes; thousands are asked within milliseconds."""
    found = []
    for folder in (out, out / "sweeps", out / "plans"):
        try:
            with os.scandir(folder) as entries:
                looked_at = [entry for entry in entries if folder != out or _may_be_run(entry)]
                found += sorted((entry.path, entry.stat().st_mtime_ns) for entry in looked_at)
        except OSError:  # not there, or just removed
            found.append((str(folder), 0))
    return found


def _may_be_run(entry: "os.DirEntry[str]") -> bool:
    """Not our own tree, and no journal that grows with every step."""
    return entry.name != FOLDER and not entry.name.startswith(".") and entry.is_dir()


def _from_plan(plan: "Plan", there: set[str]) -> ShownSweep:
    return ShownSweep(file_name(plan.sweep.name), _shown(plan.runs, there), plan)


def _shown(runs: Iterable["Run"], there: set[str]) -> tuple[ShownRun, ...]:
    runs = list(runs)
    several = len({run.task for run in runs}) > 1
    names = Names()
    found = []
    for run in runs:
        if run.id not in there:
            continue
        cell = " ".join(run.cell.labels.values())
        name = f"{cell} seed {run.seed}" + (f" {run.task}" if several else "")
        labels = dict(run.cell.labels)
        found.append(ShownRun(run.id, names.take(name), cell, labels, run.task, run.seed))
    return tuple(found)


def _others(out: Path, ids: Iterable[str]) -> ShownSweep:
    """Runs that no sweep needs any more, called by their backbone and id."""
    from focal_lab.sweep.run_folder.outcome import read_outcome

    found, names = [], Names()
    for run in sorted(ids):
        outcome = read_outcome(out / run)
        record = outcome.result or outcome.failure
        model: Mapping[str, Any] = {}
        if outcome.result is not None:
            model = outcome.result.config.get("model", {}).get("init_args", {})
        backbone = str(model.get("backbone", ""))
        options = model.get("backbone_options") or {}
        factors = {"backbone": backbone} if backbone else {}
        factors |= {str(name): str(value) for name, value in options.items()}
        name = names.take(f"{backbone} {run}".strip())
        task, seed = (record.task, record.seed) if record else (None, None)
        found.append(ShownRun(run, name, name, factors, task, seed))
    return ShownSweep(OTHERS, tuple(found), None)
