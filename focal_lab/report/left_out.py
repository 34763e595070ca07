"""Finished runs of a sweep that its report does not show: of other seeds, tasks, suites or settings."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.ablation.manifest import all_manifests, read_manifest, seedless
from focal_lab.ablation.outcomes import State, read_outcome
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.ablation.plan import Plan


def left_out(plan: "Plan", out: Path) -> Iterator[str]:
    """One sentence if `out` holds finished runs of the plan's sweep, or of its cells, that the plan lacks.

    A sweep may be run again with fewer seeds, and a report be asked for some of them; but results never
    vanish without a word.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for kind, value in _others(plan, out):
        found[kind].append(value)
    parts = []
    for kind, values in sorted(found.items()):
        names = " and ".join(map(str, sorted({*values})))
        plural = "s"[: len({*values}) - 1]
        said = {
            "seed": f"of seed{plural} {names}",
            "setting": "with other settings or cells",
            "suite": f"on suite{plural} {names}",
            "task": f"of {names}",
        }
        parts.append(f"{len(values)} {said[kind]}")
    if parts:
        yield (
            f"Left out, although finished: {', '.join(parts)} "
            "(--seeds, --tasks, --suite and --set say which runs are shown)."
        )


def _others(plan: "Plan", out: Path) -> Iterator[tuple[str, Any]]:
    """Each finished run that the plan lacks: in what it differs, and its own value."""
    seen = {run.id for run in plan.runs}
    cells: set[str] = set()
    for path in all_manifests(out):
        try:
            manifest = read_manifest(path)
        except UserError:
            continue  # of another version, whose runs are no longer those of any sweep
        for run in manifest.runs:
            if run.id in seen:
                continue
            seen.add(run.id)
            cells = cells or {seedless(run) for run in plan.runs}
            same_cell = seedless(run) in cells
            if not same_cell and manifest.sweep != plan.sweep.name:
                continue
            if read_outcome(out / run.id).state is not State.FINISHED:
                continue
            if same_cell:
                yield "seed", run.seed
            elif manifest.suite != plan.suite:
                yield "suite", manifest.suite
            elif run.task not in plan.sweep.tasks:
                yield "task", run.task
            else:
                yield "setting", None
