"""`focal-lab plan`: what a sweep would train, what that costs, and what it can reuse."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.commands.command_options import (
    add_budget,
    add_workers,
    plan_of,
    sweep_parser,
)
from focal_lab.sweep.commands.plan_text import plan_json, plan_text
from focal_lab.sweep.estimate.summary import summarize
from focal_lab.sweep.plan.plan import Plan, probe_plan
from focal_lab.sweep.spec.columns import COLUMNS, check_margin
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.utils.text_table import terminal

# Power of each metric of a plan by the runs in a folder, for a difference; and as text of a width.
Powers = Callable[[Plan, Path, float | None], Sequence[Any]]
PowerText = Callable[[Sequence[Any], int | None], str]


def plan_command(argv: list[str], papers: Sequence[str], powers: Powers, power_text: PowerText) -> int:
    """Print the runs of a sweep with their networks and costs, and what can be reused.

    Args:
        argv: what follows `focal-lab plan`.
        papers: published tables that a report can put beside a sweep.
        powers, power_text: what the sweep can detect, see `report.power_plan`.

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
    parser.add_argument(
        "--power",
        nargs="?",
        const=True,
        type=float,
        metavar="POINTS",
        help="also print the difference that the seeds detect with 80 %%, and the seeds that a difference of "
        "so many points needs (default: the metric's margin)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(argv)
    _check_power(options.power)
    plan = plan_of(options, papers)
    if options.power is not None and plan.space is not None:
        raise UserError("a search compares nothing; drop it", key="--power")
    processes = WarmProcesses(run.config for run in probe_plan(plan).runs)
    summary = summarize(plan, options.out, options.workers, processes, measure=not options.no_measure)
    wanted = None if options.power is True else options.power
    found = None if options.power is None else powers(plan, options.out, wanted)
    width, color = terminal()
    if options.json:
        power = {} if found is None else {"power": [asdict(metric) for metric in found]}
        print(json.dumps(plan_json(summary) | power, indent=1, ensure_ascii=False))
    else:
        print(plan_text(summary, width, color=color), end="")
        print("" if found is None else f"\n{power_text(found, width)}", end="")
    if options.budget is not None:
        summary.check_budget(options.budget)
    return 0


def _check_power(points: float | bool | None) -> None:
    """Raises UserError for a difference that no metric in points can have; True stands for the margins."""
    if points is None or points is True:
        return
    try:
        check_margin(next(key for key, column in COLUMNS.items() if column.in_points), points)
    except UserError as error:
        raise UserError(error.message.replace("a margin of top1", "a difference"), key="--power") from None
