"""Names of sweeps and runs in TensorBoard."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.tensorboard.log_dir import digest
from focal_lab.sweep.plan.manifest import manifest_path, read_manifest
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import read_outcome

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

OTHERS = "other runs"
# Linux allows 255 bytes.
_MAX_BYTES = 200


@dataclass(frozen=True)
class ShownRun:
    """A run of one sweep; `name` is unique in the sweep, `task` and `seed` are None where unknown."""

    id: str
    name: str
    labels: dict[str, str]
    task: str | None
    seed: int | None

    @property
    def cell(self) -> str:
        """The labels in a row."""
        return " ".join(self.labels.values())


@dataclass(frozen=True)
class ShownSweep:
    """A sweep, or the runs of none, with the runs that have started; without a plan it has no table."""

    name: str
    runs: tuple[ShownRun, ...]
    plan: "Plan | None" = None


def read_sweeps(out: Path, wanted: Sequence[Path], warnings: list[str]) -> list[ShownSweep]:
    """The wanted sweeps, or every sweep that was run in `out`, and then the runs of no sweep.

    `warnings` gets a line for each sweep that cannot be shown in full.

    Raises:
        UserError: a wanted sweep is invalid, or none of its runs has started.
    """
    started = {folder.name for folder in run_folders(out)}
    if wanted:
        return [_planned(path, out, started) for path in wanted]
    records = sorted((out / "sweeps").glob("*.json"))
    sweeps = [sweep for path in records if (sweep := _recorded(path, out, started, warnings)).runs]
    rest = started - {run.id for sweep in sweeps for run in sweep.runs}
    return [*sweeps, *([_others(out, rest)] if rest else [])]


def folder_name(label: str) -> str:
    """A label as the name of a folder: no slash, printable, not hidden, not too long."""
    name = "".join(letter if letter.isprintable() else " " for letter in label.replace("/", "-"))
    name = " ".join(name.split()).lstrip(".") or "unnamed"
    if len(name.encode()) > _MAX_BYTES:
        name = f"{name.encode()[: _MAX_BYTES - 10].decode(errors='ignore')}..{digest(label)[:8]}"
    return name


def unique_names(labels: Iterable[str]) -> list[str]:
    """The folder names of labels, the second of the same name with ` (2)`."""
    names: dict[str, None] = {}
    for label in labels:
        name = wanted = folder_name(label)
        number = 1
        while name in names:
            number += 1
            name = f"{wanted} ({number})"
        names[name] = None
    return list(names)


def _planned(path: Path, out: Path, started: set[str]) -> ShownSweep:
    from focal_lab.sweep.plan.plan import with_proposals
    from focal_lab.sweep.plan.recall import recall_plan

    plan = with_proposals(recall_plan(path, out), out)
    runs = _shown(plan.runs, started)
    if not runs:
        raise UserError(f"has no runs in {out} yet ({plan.command(out)})", file=path)
    return ShownSweep(folder_name(plan.sweep.name), runs, plan)


def _recorded(record: Path, out: Path, started: set[str], warnings: list[str]) -> ShownSweep:
    """A sweep that was run in `out`, from its file, else from the manifest of its last plan."""
    name = folder_name(record.stem)
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        path, study = Path(raw["path"]), str(raw["study"])
    except (OSError, ValueError, KeyError, TypeError):
        warnings.append(f"{record}: is damaged; start the sweep again, which rewrites it")
        return ShownSweep(name, ())
    try:
        if not path.is_file():
            raise UserError("the sweep file no longer exists", file=path)
        return _planned(path, out, started)
    except UserError as error:
        warnings.append(f"{record.stem} is shown without its table: {error}")
    try:
        return ShownSweep(
            name, _shown(read_manifest(manifest_path(out, study), to_train=False).runs, started)
        )
    except UserError as error:
        warnings.append(str(error))
        return ShownSweep(name, ())


def _shown(planned: Sequence["Run"], started: set[str]) -> tuple[ShownRun, ...]:
    several = len({run.task for run in planned}) > 1
    runs = [run for run in planned if run.id in started]
    names = unique_names(
        f"{' '.join(run.cell.labels.values())} seed {run.seed}" + (f" {run.task}" if several else "")
        for run in runs
    )
    return tuple(
        ShownRun(run.id, name, dict(run.cell.labels), run.task, run.seed)
        for run, name in zip(runs, names, strict=True)
    )


def _others(out: Path, ids: Iterable[str]) -> ShownSweep:
    """Runs that belong to no sweep, named by backbone and ID."""
    runs = []
    for run in sorted(ids):
        outcome = read_outcome(out / run)
        record = outcome.result or outcome.failure
        model = outcome.result.config.get("model", {}).get("init_args", {}) if outcome.result else {}
        backbone = str(model.get("backbone", ""))
        labels = {"backbone": backbone} if backbone else {}
        labels |= {name: str(value) for name, value in (model.get("backbone_options") or {}).items()}
        task, seed = (record.task, record.seed) if record else (None, None)
        runs.append(ShownRun(run, folder_name(f"{backbone} {run}"), labels, task, seed))
    return ShownSweep(OTHERS, tuple(runs))
