"""`focal-lab sweep`: trains what is missing."""

import sys
from collections.abc import Sequence
from pathlib import Path

from focal_lab.command_line import command
from focal_lab.errors import UserError
from focal_lab.sweep.commands.execution import (
    add_work_options,
    conclusion,
    execute,
    settled,
    status_of,
    work_of,
)
from focal_lab.sweep.commands.options import parse_duration, plan_of, sweep_parser
from focal_lab.sweep.commands.progress import SweepView
from focal_lab.sweep.engine.conflicts import refuse_conflicts
from focal_lab.sweep.engine.slots import find_slots
from focal_lab.sweep.estimate.check_and_count import check_plan
from focal_lab.sweep.estimate.summary import survey_of
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan, probe_plan, remember, with_proposals
from focal_lab.sweep.run_folder.disk_space import check_room
from focal_lab.sweep.worker.processes import WarmProcesses


def sweep_command(argv: list[str], papers: Sequence[str]) -> tuple[int, Plan, Path]:
    """Train what is missing of a sweep.

    Args:
        argv: what follows `focal-lab sweep`.
        papers: published tables that a report can put beside a sweep.

    Returns:
        Exit status (0 all finished, 1 some failed, 130 interrupted), the plan, and the folder of its runs.

    Raises:
        UserError: the sweep, the suite, an option or the storage is wrong, or the folder cannot be written.
    """
    parser = sweep_parser("sweep", sweep_command)
    add_work_options(parser)
    parser.add_argument(
        "--devices-per-run",
        type=int,
        metavar="N",
        help="train each run on N GPUs by DDP (default: what the experiment says, else 1); "
        "N times the pictures a step, so these are other runs than those on one",
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="refuse a plan that takes longer on these workers: 40h, 30m, 90s"
    )
    options = parser.parse_args(argv)
    budget = None if options.budget is None else parse_duration(options.budget, "--budget")
    work, out = work_of(options), options.out
    options.set = [*options.set, *_devices(options.devices_per_run)]
    plan = plan_of(options, papers)
    check_room(out)
    plan = with_proposals(plan, out)
    manifest = Manifest(
        plan.study, plan.sweep.name, plan.suite, plan.sweep.title, plan.distinct_runs, plan.recipe
    )
    refuse_conflicts(plan, out)
    queue = work.open(manifest, out)
    probes = probe_plan(plan)
    processes = WarmProcesses(run.config for run in probes.runs)
    checked = check_plan(probes, processes, out)
    total = plan.recipe.trials if plan.recipe else len(plan.distinct_runs)
    places = find_slots(probes.distinct_runs, checked.devices, work.workers, total)
    survey = survey_of(plan, checked, places, out, processes if budget is not None else None)
    survey.refuse_absent()
    if budget is not None:
        survey.hold(budget)
    remember(plan, out, options.set)
    write_manifest(out, manifest)
    view = SweepView(plan, checked.costs, places.count, seconds=survey.estimates.seconds)
    view.promise(total - len(plan.distinct_runs), plan.sweep.tasks[0])
    view.noted(
        f"{plan.sweep.title}: {total} runs on suite {plan.suite}, {places}"
        + (f"; join in with --study {plan.study}" if work.storage else ""),
        style="bold",
    )
    try:
        summary = execute(plan.distinct_runs, manifest, out, queue, places, work, processes, view)
    finally:
        view.close()
    again = command("sweep", *argv)
    print(conclusion(settled(summary, queue, total, out), summary, again), file=sys.stderr)
    return status_of(summary), with_proposals(plan, out), out


def _devices(count: int | None) -> list[str]:
    """Settings that make a run train on so many devices.

    Raises:
        UserError: fewer than one.
    """
    if count is None:
        return []
    if count < 1:
        raise UserError(f"{count} is too few; use 1 or more", key="--devices-per-run")
    return [f"trainer.devices={count}", *(["trainer.strategy=ddp"] if count > 1 else [])]
