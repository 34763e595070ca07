"""Names of sweeps and runs in TensorBoard."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.table.build import recall_sweep
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
    sweeps = []
    for path in wanted:
        plan = recall_sweep(path, out)
        sweeps.append(_shown(plan.sweep.name, plan.runs, started, plan))
        if not sweeps[-1].runs:
            raise UserError(f"has no runs in {out} yet ({plan.command(out)})", file=path)
    if wanted:
        return sweeps
    for record in sorted((out / "sweeps").glob("*.json")):
        try:
            sweeps.append(_recorded(record, out, started, warnings))
        except UserError as error:
            warnings.append(str(error))
    rest = started - {run.id for sweep in sweeps for run in sweep.runs}
    others = [ShownSweep(OTHERS, tuple(_other(out / run) for run in sorted(rest)))]
    return [sweep for sweep in sweeps + others if sweep.runs]


def folder_name(label: str) -> str:
    """A label as the name of a folder: no slash, printable, not hidden, not too long."""
    name = "".join(letter if letter.isprintable() else " " for letter in label.replace("/", "-"))
    name = " ".join(name.split()).lstrip(".") or "unnamed"
    return name.encode()[:_MAX_BYTES].decode(errors="ignore")


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


def _recorded(record: Path, out: Path, started: set[str], warnings: list[str]) -> ShownSweep:
    """A sweep that was run in `out`, from its file, else from the manifest of its last plan."""
    from focal_lab.sweep.plan.recall import last_run

    noted = last_run(record, out)
    if "path" not in noted or "study" not in noted:
        raise UserError("is damaged; start the sweep again, which rewrites it", file=record)
    try:
        plan = recall_sweep(noted["path"], out)
        return _shown(plan.sweep.name, plan.runs, started, plan)
    except UserError as error:
        warnings.append(f"{record.stem} is shown without its table: {error}")
    manifest = read_manifest(manifest_path(out, noted["study"]), to_train=False)
    return _shown(record.stem, manifest.runs, started)


def _shown(sweep: str, planned: Sequence["Run"], started: set[str], plan: "Plan | None" = None) -> ShownSweep:
    several = len({run.task for run in planned}) > 1
    runs = [run for run in planned if run.id in started]
    names = unique_names(
        f"{' '.join(run.cell.labels.values())} seed {run.seed}" + (f" {run.task}" if several else "")
        for run in runs
    )
    shown = tuple(
        ShownRun(run.id, name, dict(run.cell.labels), run.task, run.seed)
        for run, name in zip(runs, names, strict=True)
    )
    return ShownSweep(folder_name(sweep), shown, plan)


def _other(folder: Path) -> ShownRun:
    """A run that belongs to no sweep, named by backbone and ID."""
    outcome = read_outcome(folder)
    record = outcome.result or outcome.failure
    model = outcome.result.config.get("model", {}).get("init_args", {}) if outcome.result else {}
    backbone = str(model.get("backbone", ""))
    labels = {"backbone": backbone} if backbone else {}
    labels |= {name: str(value) for name, value in (model.get("backbone_options") or {}).items()}
    task, seed = (record.task, record.seed) if record else (None, None)
    return ShownRun(folder.name, folder_name(f"{backbone} {folder.name}"), labels, task, seed)
