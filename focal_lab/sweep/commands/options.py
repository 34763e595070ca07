"""What the command lines about a sweep share."""

import argparse
import re
from collections.abc import Sequence

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.plan.plan import Plan, make_plan, parse_overrides
from focal_lab.sweep.plan.trainer_settings import refuse_unhonoured
from focal_lab.sweep.spec.sweep_file import TASKS, find_sweep

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhd])", re.ASCII)


def plan_of(options: argparse.Namespace, papers: Sequence[str]) -> Plan:
    """The plan that the options of a command line ask for.

    Args:
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is not a folder", key="--out")
    plan = make_plan(
        find_sweep(options.sweep),
        suite=options.suite,
        seeds=options.seeds,
        overrides=options.set,
        tasks=options.tasks,
        out=options.out,
    )
    if plan.sweep.paper not in (None, *papers):
        raise UserError(
            f"{plan.sweep.paper} is no published table with a layout (use {one_of(papers)})",
            file=plan.sweep.path,
            key="paper",
        )
    refuse_unhonoured(plan, parse_overrides(options.set))
    return plan


def sweep_parser(name: str, function: object) -> argparse.ArgumentParser:
    """What `plan` and `sweep` have in common; the first line of the function's docstring is the help."""
    description = str(function.__doc__).splitlines()[0]
    examples = f"""examples:
  focal-lab {name} window_size
  focal-lab {name} sweeps/window_size.yaml --seeds 1 --set trainer.max_epochs=1"""
    parser = CommandParser(prog=f"focal-lab {name}", description=description, epilog=examples)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file, or the name of one in sweeps/")
    parser.add_argument("--suite", help="folder of experiments/ to train on (default: digits)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"what every cell is trained for: {one_of(TASKS)} (default: the file's)",
    )
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the file's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting for every run, such as trainer.max_epochs=1 or focal_pool=mean; may be repeated",
    )
    add_out(parser)
    return parser


def parse_duration(text: str, key: str) -> float:
    """Seconds of `90s`, `30m`, `2.5h` or `2d`.

    Args:
        text: a number and a unit; a bare number is refused, because it is taken for hours by some.
        key: the option, for the message.

    Raises:
        UserError: no such time, or none at all.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        bare = re.fullmatch(r"\d+(?:\.\d+)?", text.strip(), re.ASCII)
        way_out = (
            f"add a unit: {text.strip()}s, {text.strip()}m or {text.strip()}h"
            if bare
            else "use 90s, 30m, 2.5h or 2d"
        )
        raise UserError(f"{text!r} is no time ({way_out})", key=key)
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds <= 0:
        raise UserError(f"{text} is too little time", key=key)
    return seconds
