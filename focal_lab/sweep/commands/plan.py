"""`focal-lab plan`: what a sweep would train, what that costs, and what it can reuse."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace

from focal_lab.errors import UserError
from focal_lab.sweep.commands.options import parse_duration, plan_of, sweep_parser
from focal_lab.sweep.commands.plan_text import plan_json, plan_text
from focal_lab.sweep.engine.hardware import cores
from focal_lab.sweep.engine.slots import DeviceSlots, find_slots
from focal_lab.sweep.estimate.check_and_count import check_plan
from focal_lab.sweep.estimate.summary import Survey, survey_of
from focal_lab.sweep.plan.plan import probe_plan
from focal_lab.sweep.worker.processes import WarmProcesses


def plan_command(argv: list[str], papers: Sequence[str]) -> int:
    """Print the runs of a sweep with what they come to and cost, and what is there already.

    Args:
        argv: what follows `focal-lab plan`.
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong, or the budget is exceeded.
    """
    options = _parser().parse_args(argv)
    if options.workers is not None and options.workers < 1:
        raise UserError(f"{options.workers} is too few; use 1 or more", key="--workers")
    budget = None if options.budget is None else parse_duration(options.budget, "--budget")
    survey = _survey(options, papers)
    if options.json:
        print(json.dumps(plan_json(survey), indent=1, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size((120, 24)).columns if _sized() else None
        print(plan_text(survey, width, color=sys.stdout.isatty()), end="")
    if budget is not None:
        survey.hold(budget)
    return 0


def _survey(options: argparse.Namespace, papers: Sequence[str]) -> Survey:
    asked, out = plan_of(options, papers), options.out
    plan = probe_plan(asked)
    processes = WarmProcesses(run.config for run in plan.runs)
    checked = check_plan(plan, processes, out)
    total = asked.recipe.trials if asked.recipe else len(plan.distinct_runs)
    try:
        places = find_slots(plan.distinct_runs, checked.devices, options.workers, total)
    except UserError as error:  # a plan for a larger machine is a plan
        places = DeviceSlots(max(1, min(options.workers or 1, total)), cores())
        return replace(survey_of(asked, checked, places, out, None), obstacle=str(error))
    measuring = None if options.no_measure else processes
    return survey_of(asked, checked, places, out, measuring, way_out=" (--no-measure skips this)")


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser("plan", plan_command)
    parser.add_argument(
        "--workers", type=int, help="runs to be trained at the same time (default: as focal-lab sweep)"
    )
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="measure no steps: times and memory only of what was measured or trained before",
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="refuse a plan that takes longer on these workers: 40h, 30m, 90s"
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    return parser


def _sized() -> bool:
    """Whether there is a width to keep to: a pipe has none, unless COLUMNS says so."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ
