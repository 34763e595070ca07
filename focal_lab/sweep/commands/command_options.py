"""Options that the commands about sweeps share."""

import argparse
import re
from collections.abc import Sequence

from focal_lab.command_line import CommandParser, add_out, at_least
from focal_lab.errors import UserError, known_names, one_of
from focal_lab.sweep.plan.plan import Plan, make_plan, parse_overrides
from focal_lab.sweep.plan.recall import last_run, with_looks
from focal_lab.sweep.plan.sequential import (
    DEFAULT_MOST,
    FIRST_SEEDS,
    LEAST_MAXIMUM,
    MOST_SEEDS,
    needed_so_far,
)
from focal_lab.sweep.plan.trainer_settings import refuse_unhonoured
from focal_lab.sweep.spec.sweep_file import TASKS, find_sweep

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?) ?([smhd]?)", re.ASCII)


def plan_of(options: argparse.Namespace, papers: Sequence[str]) -> Plan:
    """The plan that a command line requests.

    Args:
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is not a folder", key="--out")
    max_seeds = _max_seeds(options)
    plan = make_plan(
        find_sweep(options.sweep),
        suite=options.suite,
        seeds=options.seeds,
        overrides=options.set,
        tasks=options.tasks,
        max_seeds=max_seeds,
        out=options.out,
    )
    if max_seeds is not None:
        noted = last_run(plan.sweep.path, options.out)
        plan = needed_so_far(plan, options.out, noted.get("runs", ()) if "until_decided" in noted else ())
    plan = with_looks(plan, options.out)
    paper = plan.sweep.paper
    if paper not in (None, *papers):
        what = f"{paper} is not a published table with a layout"
        raise UserError(what + known_names(str(paper), papers), file=plan.sweep.path, key="paper")
    refuse_unhonoured(plan, parse_overrides(options.set))
    return plan


def _max_seeds(options: argparse.Namespace) -> int | None:
    """The largest number of seeds of a sequential sweep; None if their number is fixed."""
    if not options.until_decided:
        if options.max_seeds is not None:
            raise UserError("needs --until-decided (--seeds is a fixed number of seeds)", key="--max-seeds")
        return None
    if options.seeds is not None:
        raise UserError(
            f"cannot be combined with --until-decided, which begins with {FIRST_SEEDS} seeds and adds others "
            "(--max-seeds limits their number)",
            key="--seeds",
        )
    most: int = DEFAULT_MOST if options.max_seeds is None else options.max_seeds
    if not LEAST_MAXIMUM <= most <= MOST_SEEDS:
        raise UserError(f"{most} is not a number from {LEAST_MAXIMUM} to {MOST_SEEDS}", key="--max-seeds")
    return most


def command_parser(name: str, function: object, *examples: str) -> argparse.ArgumentParser:
    """A parser with examples; the first line of the function's docstring is its description."""
    return CommandParser(
        prog=f"focal-lab {name}",
        description=str(function.__doc__).splitlines()[0],
        epilog="\n  ".join(["examples:", *(f"focal-lab {name} {example}" for example in examples)]),
    )


def sweep_parser(name: str, function: object, *examples: str) -> argparse.ArgumentParser:
    """Options that `plan` and `sweep` have in common."""
    parser = command_parser(name, function, *examples)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file, or the name of one in sweeps/")
    parser.add_argument("--suite", help="folder of experiments/ to train on (default: digits)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"tasks that every cell is trained for: {one_of(TASKS)} (default: the file's)",
    )
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the file's)")
    parser.add_argument(
        "--until-decided",
        action="store_true",
        help="add seeds to the cells of undecided comparisons, one by one, instead of a fixed number",
    )
    parser.add_argument(
        "--max-seeds",
        type=int,
        metavar="N",
        help=f"with --until-decided: largest number of seeds, chosen beforehand (default: {DEFAULT_MOST})",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting for every run, such as trainer.max_epochs=1 or focal_pool=mean; may be repeated",
    )
    add_out(parser)
    return parser


def add_workers(parser: argparse.ArgumentParser, default: str) -> None:
    """`--workers`, which is described with its default."""
    help_text = f"runs trained at the same time (default: {default})"
    parser.add_argument("--workers", type=at_least(1), help=help_text)


def add_budget(parser: argparse.ArgumentParser) -> None:
    """`--budget`."""
    parser.add_argument(
        "--budget",
        type=duration,
        metavar="TIME",
        help="refuse a plan that takes longer on these workers: 40h, 30m, 90s",
    )


def duration(text: str) -> float:
    """The type of an option that is a time: seconds of `90s`, `30m`, `2.5h` or `2d`.

    A bare number is refused, because some take it for hours.
    """
    word = text.strip()
    found = _NUMBER.fullmatch(word)
    if found is None or not found[2]:
        way_out = "use 90s, 30m, 2.5h or 2d" if found is None else f"add a unit: {word}s, {word}m or {word}h"
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration ({way_out})")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is too short")
    return seconds
