"""`focal-lab sweep`: trains what is missing."""

import sys
from collections.abc import Sequence
from pathlib import Path

from focal_lab.ablation.costs import check_plan
from focal_lab.ablation.engine.execute import Execution, Summary, cores, default_workers
from focal_lab.ablation.engine.orders import WarmProcesses
from focal_lab.ablation.engine.progress import SweepView
from focal_lab.ablation.options import plan_of, sweep_parser
from focal_lab.ablation.plan import Plan, check_out, remember
from focal_lab.errors import UserError

SOME_FAILED = 1
INTERRUPTED = 130


def sweep_command(argv: list[str], papers: Sequence[str]) -> tuple[int, Plan, Path]:
    """Train what is missing of a sweep.

    Args:
        argv: what follows `focal-lab sweep`.
        papers: published tables that a report can put beside a sweep.

    Returns:
        Exit status (0 all finished, 1 some failed, 130 interrupted), the plan, and the folder of its runs.

    Raises:
        UserError: the sweep, the suite or an option is wrong, or the folder cannot be written to.
    """
    parser = sweep_parser("sweep", sweep_command)
    parser.add_argument(
        "--workers", type=int, help="runs trained at the same time (default: one a GPU, or a core)"
    )
    options = parser.parse_args(argv)
    if options.workers is not None and options.workers < 1:
        raise UserError(f"{options.workers} is too few; use 1 or more", key="--workers")
    plan = plan_of(options, papers)
    check_out(options.out)
    processes = WarmProcesses()
    checked = check_plan(plan, processes)
    remember(plan, options.out, options.set)
    workers = min(options.workers or default_workers(checked.devices), len(plan.distinct_runs))
    threads = max(1, cores() // workers)
    view = SweepView(plan, checked.costs, workers)
    view.noted(
        f"{plan.sweep.title}: {len(plan.distinct_runs)} runs on suite {plan.suite}, {workers} at a time with "
        f"{threads} {'thread' if threads == 1 else 'threads'} each",
        style="bold",
    )
    try:
        summary = Execution(
            plan,
            options.out,
            workers=workers,
            threads=threads,
            devices=checked.devices,
            processes=processes,
            view=view,
        ).run()
    finally:
        view.close()
    print(conclusion(plan, summary, sys.argv), file=sys.stderr)
    status = INTERRUPTED if summary.interrupted else SOME_FAILED if summary.failed else 0
    return status, plan, options.out


def conclusion(plan: Plan, summary: Summary, command: list[str]) -> str:
    """What a sweep came to, in a line or two."""
    parts = [f"{len(summary.trained)} trained", f"{len(summary.reused)} reused"]
    if summary.elsewhere:
        parts.append(f"{len(summary.elsewhere)} trained by another command")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed (the next sweep tries them again)")
    told = f"{len(plan.distinct_runs)} runs: {', '.join(parts)}"
    if not summary.interrupted:
        return told
    return f"{told}, stopped before the rest. Go on with: focal-lab {' '.join(command[1:])}"
