"""`focal-lab plan`: what a sweep would train, what that costs, and what it can reuse."""

import json
from collections.abc import Sequence

from focal_lab.sweep.commands.command_options import (
    add_budget,
    add_workers,
    plan_of,
    sweep_parser,
)
from focal_lab.sweep.commands.plan_text import plan_json, plan_text
from focal_lab.sweep.estimate.summary import summarize
from focal_lab.sweep.plan.plan import probe_plan
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.utils.text_table import terminal


def plan_command(argv: list[str], papers: Sequence[str]) -> int:
    """Print the runs of a sweep with their networks and costs, and what can be reused.

    Args:
        argv: what follows `focal-lab plan`.
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong, or the budget is exceeded.
    """
    parser = sweep_parser("plan", plan_command, "window_size", "sweeps/depth.yaml --workers 2 --budget 40h")
    add_workers(parser, "as focal-lab sweep")
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="do not measure steps: use only times and memory that are known from earlier runs and plans",
    )
    add_budget(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(argv)
    plan = plan_of(options, papers)
    processes = WarmProcesses(run.config for run in probe_plan(plan).runs)
    summary = summarize(plan, options.out, options.workers, processes, measure=not options.no_measure)
    if options.json:
        print(json.dumps(plan_json(summary), indent=1, ensure_ascii=False))
    else:
        width, color = terminal()
        print(plan_text(summary, width, color=color), end="")
    if options.budget is not None:
        summary.check_budget(options.budget)
    return 0
