"""`focal-lab sweep`: trains the missing runs of a sweep, and prints its table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from focal_lab.command_line import at_least, command
from focal_lab.sweep.commands.command_options import add_budget, plan_of, sweep_parser
from focal_lab.sweep.commands.execution import add_execution_options, execute, open_queue
from focal_lab.sweep.commands.until_decided import add_seeds
from focal_lab.sweep.engine.conflicts import refuse_conflicts
from focal_lab.sweep.engine.progress import SweepView
from focal_lab.sweep.estimate.summary import summarize
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan, probe_plan, with_proposals
from focal_lab.sweep.plan.recall import remember
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.plan.sequential import Decide
from focal_lab.sweep.run_folder.disk_space import check_room
from focal_lab.sweep.worker.processes import WarmProcesses


def sweep_command(argv: list[str], papers: Sequence[str], decide: Decide) -> tuple[int, Plan, Path]:
    """Train the missing runs of a sweep.

    Args:
        argv: what follows `focal-lab sweep`.
        papers: published tables that a report can put beside a sweep.
        decide: returns the state of a plan's comparisons, for `--until-decided`.

    Returns:
        Exit status (0 all finished, 1 some failed, 130 interrupted), the plan, and the folder of its runs.

    Raises:
        UserError: the sweep, the suite, an option or the storage is wrong, or the folder cannot be written.
    """
    parser = sweep_parser("sweep", sweep_command, "window_size", "window_size --seeds 5 --set model.lr=1e-3")
    add_execution_options(parser)
    parser.add_argument(
        "--devices-per-run",
        type=at_least(1),
        metavar="N",
        help="train each run on N GPUs by DDP (default: the experiment's setting, or 1); "
        "a step has N times the images, so run IDs differ from those on one GPU",
    )
    add_budget(parser)
    options = parser.parse_args(argv)
    out, budget, devices = options.out, options.budget, options.devices_per_run
    if devices is not None:
        ddp = ["trainer.strategy=ddp"] if devices > 1 else []
        options.set = [*options.set, f"trainer.devices={devices}", *ddp]
    plan = plan_of(options, papers)
    check_room(out)
    plan = with_proposals(plan, out)
    sweep, runs = plan.sweep, plan.distinct_runs
    manifest = Manifest(plan.study, sweep.name, plan.suite, sweep.title, runs, plan.space)
    refuse_conflicts(plan, out)
    queue = open_queue(options, manifest)
    processes = WarmProcesses(run.config for run in probe_plan(plan).runs)
    summary = summarize(plan, out, options.workers, processes, measure=budget is not None)
    summary.refuse_untrainable()
    if budget is not None:
        summary.check_budget(budget)
    remember(plan, out, options.set)
    write_manifest(out, manifest)
    slots, total = summary.slots, plan.space.trials if plan.space else len(runs)
    seconds = summary.estimates.seconds
    view = SweepView(runs, summary.checked.costs, slots.count, total - len(runs), seconds=seconds)
    join = f"; join with focal-lab worker --study {plan.study}" if options.storage else ""
    seeds = f", then up to {plan.max_seeds} seeds until all is decided" if plan.max_seeds else ""
    view.noted(f"{sweep.title}: {total} runs on suite {plan.suite}{seeds}, {slots}{join}", style="bold")
    again = command("sweep", *argv)
    status = execute(options, manifest, queue, slots, processes, view, again)
    if plan.max_seeds is None:
        return status, with_proposals(plan, out), out

    def train(longer: Plan, added: Sequence[Run]) -> int:
        """Train the next seeds."""
        remember(longer, out, options.set)
        write_manifest(out, replace(manifest, runs=longer.distinct_runs))
        next_runs = replace(manifest, runs=tuple(added))
        view = SweepView(added, summary.checked.costs, slots.count, seconds=seconds)
        return execute(options, next_runs, open_queue(options, manifest), slots, processes, view, again)

    return *add_seeds(plan, out, status, decide, train, slots.count), out
