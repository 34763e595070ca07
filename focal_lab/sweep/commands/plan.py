"""`focal-lab plan`: what a sweep would train, what that costs, and what it can reuse."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

from focal_lab.errors import UserError
from focal_lab.sweep.commands.options import (
    add_budget,
    add_workers,
    plan_of,
    sweep_parser,
)
from focal_lab.sweep.commands.plan_text import plan_json, plan_text
from focal_lab.sweep.engine.slots import DeviceSlots, cores, find_slots
from focal_lab.sweep.estimate.check_and_count import check_plan
from focal_lab.sweep.estimate.summary import PlanSummary, summarize
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
    summary = _summarize(options, papers)
    if options.json:
        print(json.dumps(plan_json(summary), indent=1, ensure_ascii=False))
    else:
        width, color = terminal()
        print(plan_text(summary, width, color=color), end="")
    if options.budget is not None:
        summary.check_budget(options.budget)
    return 0


def _summarize(options: argparse.Namespace, papers: Sequence[str]) -> PlanSummary:
    asked, out = plan_of(options, papers), options.out
    plan = probe_plan(asked)
    processes = WarmProcesses(run.config for run in plan.runs)
    checked = check_plan(plan, processes)
    total = asked.space.trials if asked.space else len(plan.distinct_runs)
    try:
        slots = find_slots(plan.distinct_runs, checked.machine.devices, options.workers, total)
    except UserError as error:  # a plan for a larger machine is still printed
        slots = DeviceSlots(max(1, min(options.workers or 1, total)), cores())
        return replace(summarize(asked, checked, slots, out, None), obstacle=str(error))
    measuring = None if options.no_measure else processes
    return summarize(asked, checked, slots, out, measuring)
