"""`focal-lab worker`: joins in a sweep that another command has begun, here or on another machine."""

import sys
from pathlib import Path

from focal_lab.command_line import CommandParser, add_out, command
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.commands.execution import (
    add_work_options,
    conclusion,
    execute,
    settled,
    status_of,
    work_of,
)
from focal_lab.sweep.commands.progress import SweepView
from focal_lab.sweep.engine.slots import find_slots
from focal_lab.sweep.estimate.check_and_count import check_here
from focal_lab.sweep.identity.user_code import UserCode, changed_code
from focal_lab.sweep.plan.manifest import Manifest, all_manifests, manifest_path, read_manifest
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.disk_space import check_room
from focal_lab.sweep.run_folder.layout import RESULT_FILE
from focal_lab.sweep.worker.processes import WarmProcesses

_EPILOG = """examples:
  focal-lab worker --study window_size
  focal-lab worker --study window_size --out /shared/runs --workers 2"""


def worker_command(argv: list[str]) -> int:
    """Train runs of a sweep that was begun elsewhere, until none is left; come and go at any time.

    Args:
        argv: what follows `focal-lab worker`.

    Returns:
        Exit status: 0 all finished, 1 some failed, 130 interrupted.

    Raises:
        UserError: an option is wrong, there is no such study, the storage cannot be used, or the runs cannot
            be trained on this machine, which may lack their data.
    """
    description = str(worker_command.__doc__).splitlines()[0]
    parser = CommandParser(prog="focal-lab worker", description=description, epilog=_EPILOG)
    parser.add_argument("--study", required=True, help="the study to join, or the name of its sweep")
    add_out(parser)
    add_work_options(parser)
    options = parser.parse_args(argv)
    work, out = work_of(options), options.out
    manifest = find_study(out, options.study)
    check_room(out)
    check_code(manifest)
    queue = work.open(manifest, out)
    processes = WarmProcesses(run.config for run in manifest.runs)
    check_here(_to_train(manifest, out), processes)
    total = manifest.recipe.trials if manifest.recipe else len(manifest.runs)
    places = find_slots(manifest.runs, processes.count_devices(), work.workers, total)
    view = SweepView.of_manifest(manifest, places.count)
    view.promise(total - len(manifest.runs), manifest.recipe.sweep.tasks[0] if manifest.recipe else "")
    view.noted(f"{manifest.title}: joining in, {places}", style="bold")
    try:
        summary = execute(manifest.runs, manifest, out, queue, places, work, processes, view, adopt=True)
    finally:
        view.close()
    again = command("worker", *argv)
    print(conclusion(settled(summary, queue, total, out), summary, again), file=sys.stderr)
    return status_of(summary)


def _to_train(manifest: Manifest, out: Path) -> list[Run]:
    """Runs without a result; of a search what it may propose."""
    if manifest.recipe is not None:
        return [manifest.recipe.run(params) for params in manifest.recipe.probes()]
    return [run for run in manifest.runs if not (out / run.id / RESULT_FILE).exists()]


def check_code(manifest: Manifest) -> None:
    """Make sure that this machine has the code that the runs were planned with.

    Raises:
        UserError: the user's own code differs, so that results would not be those of the runs' ids.
    """
    code = UserCode()
    changed = dict.fromkeys(
        name for run in manifest.runs for name in changed_code(run.config, run.identity, code)
    )
    if manifest.recipe is not None:
        planned, now = manifest.recipe.planned_code, manifest.recipe.code
        changed |= dict.fromkeys(name for name in {**planned, **now} if planned.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{', '.join(sorted(changed))}: not the code that study {manifest.study} was planned with; "
            "use the same code, or focal-lab sweep, which trains runs of its own",
            key="--study",
        )


def find_study(out: Path, name: str) -> Manifest:
    """The manifest of a study, by its name or that of its sweep.

    Raises:
        UserError: there is none, several have that name, or it cannot be read.
    """
    path = manifest_path(out, name)
    if path.is_file():
        return read_manifest(path)
    there = list(all_manifests(out))
    found = [path for path in there if path.stem.startswith(f"{name}-")]
    if len(found) == 1:
        return read_manifest(found[0])
    known = one_of(path.stem for path in found or there) if there else ""
    way_out = f"use {known}" if known else "start it with focal-lab sweep, with the same --out"
    problem = "is the beginning of several studies" if found else f"is no study in {out}"
    raise UserError(f"{name} {problem} ({way_out})", key="--study")
