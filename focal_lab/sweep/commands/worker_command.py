"""`focal-lab worker`: trains runs of a sweep that another command started, here or on another machine."""

from pathlib import Path

from focal_lab.command_line import add_out, command
from focal_lab.errors import UserError, did_you_mean, one_of
from focal_lab.sweep.commands.command_options import command_parser
from focal_lab.sweep.commands.execution import add_execution_options, execute, open_queue
from focal_lab.sweep.engine.progress import SweepView
from focal_lab.sweep.engine.slots import find_slots
from focal_lab.sweep.estimate.check_and_count import check_here
from focal_lab.sweep.identity.user_code import UserCode, changed_code
from focal_lab.sweep.plan.manifest import Manifest, all_manifests, manifest_path, read_manifest
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.disk_space import check_room
from focal_lab.sweep.run_folder.layout import RESULT_FILE
from focal_lab.sweep.worker.processes import WarmProcesses


def main(argv: list[str]) -> int:
    """Train runs of a sweep that was started elsewhere, until none is left; workers may come and go.

    Args:
        argv: what follows `focal-lab worker`.

    Returns:
        Exit status: 0 all finished, 1 some failed, 130 interrupted.

    Raises:
        UserError: an option is wrong, there is no such study, the storage cannot be used, or the runs cannot
            be trained on this machine, which may lack their data.
    """
    elsewhere = "--study depth --out /shared/runs --storage postgresql://me@host/focal"
    parser = command_parser("worker", main, "--study window_size", elsewhere)
    parser.add_argument("--study", required=True, help="the study to join, or the name of its sweep")
    add_out(parser)
    add_execution_options(parser)
    options = parser.parse_args(argv)
    out = options.out
    manifest = find_study(out, options.study)
    check_room(out)
    check_code(manifest)
    queue = open_queue(options, manifest)
    processes = WarmProcesses(run.config for run in manifest.runs)
    machine = check_here(_to_train(manifest, out), processes)
    total = manifest.space.trials if manifest.space else len(manifest.runs)
    slots = find_slots(manifest.runs, machine.devices, options.workers, total)
    view = SweepView(manifest.runs, {}, slots.count, total - len(manifest.runs))
    view.noted(f"{manifest.title}: joining, {slots}", style="bold")
    again = command("worker", *argv)
    return execute(options, manifest, queue, slots, processes, view, again, adopt=True)


def _to_train(manifest: Manifest, out: Path) -> list[Run]:
    """Runs without a result; for a search, runs that it may propose."""
    if manifest.space is not None:
        return [manifest.space.run(params) for params in manifest.space.probes()]
    return [run for run in manifest.runs if not (out / run.id / RESULT_FILE).exists()]


def check_code(manifest: Manifest) -> None:
    """Make sure that this machine has the code that the runs were planned with.

    Raises:
        UserError: the user's own code differs, so that results would not belong to the runs' IDs.
    """
    code = UserCode()
    changed = {name for run in manifest.runs for name in changed_code(run.config, run.identity, code)}
    if manifest.space is not None:
        planned, now = manifest.space.planned_code, manifest.space.code
        changed |= {name for name in {**planned, **now} if planned.get(name) != now.get(name)}
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
    names = [path.stem for path in found or there]
    if found:
        raise UserError(f"{name} matches several studies (use {one_of(names)})", key="--study")
    hint = did_you_mean(name, [*names, *(stem.rsplit("-", 2)[0] for stem in names)])
    use = f" (use {one_of(names)})" if names else " (start it with focal-lab sweep, with the same --out)"
    raise UserError(f"{name} is not a study in {out}{hint or use}", key="--study")
