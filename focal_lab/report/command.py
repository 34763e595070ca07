"""`focal-lab report`: the paper's table of a sweep, or all runs as one long table."""

import argparse
import gc
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.ablation.plan import Plan

FORMATS = ("text", "markdown", "csv", "json")
# For an output that knows ASCII only, such as a pipe under LC_ALL=C.
_ASCII = str.maketrans({"±": "+-", "–": "-", "─": "-", "━": "-", "…": "..."})  # noqa: RUF001
_EPILOG = """examples:
  focal-lab report window_size                    measured beside published, in the paper's layout
  focal-lab report window_size --format markdown  the same for a README
  focal-lab report --format csv > runs.csv        every run with everything that is known about it"""


def main(argv: list[str]) -> int:
    """Print the report to stdout; the exit status.

    Args:
        argv: what follows `focal-lab report`.

    Raises:
        UserError: no runs, no such sweep, or a sweep that is wrong.
    """
    options = _parser().parse_args(argv)
    # ten thousand records are read and nothing is thrown away: looking for garbage takes a third of the time
    gc.disable()
    try:
        return _report(options)
    finally:
        gc.enable()


def _report(options: argparse.Namespace) -> int:
    out: Path = options.out
    _check_has_runs(out)
    if options.sweep is None:
        _refuse_plan_options(options)
        from focal_lab.report.frame import all_rows

        text = _long(all_rows(out), [], options.format, sys.stdout)
    else:
        from focal_lab.ablation.plan import recall_plan, with_proposals
        from focal_lab.ablation.sweep_file import find_sweep

        path = find_sweep(options.sweep)
        plan = recall_plan(
            path, out, suite=options.suite, seeds=options.seeds, overrides=options.set, tasks=options.tasks
        )
        plan = with_proposals(plan, out)
        text = _sweep_long(plan, out, options.format) if options.long else _table(plan, out, options.format)
    _write(text, sys.stdout)
    return 0


def print_table(plan: "Plan", out: Path, format: str = "text", file: TextIO | None = None) -> None:
    """Print a plan's table, finished or not.

    Args:
        plan: which runs, in which rows.
        out: the folder of the runs.
        format: one of FORMATS.
        file: where to; stdout by default. Colours only if it is a terminal.

    Raises:
        UserError: the sweep names a published table or a column that does not exist.
    """
    stream = file or sys.stdout
    _write(_table(plan, out, format, stream), stream)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="focal-lab report",
        description="Measured numbers and their spread beside the published ones; or every run in one table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="sweep file or its name; none: all runs")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--suite", help="the suite the runs were trained on (default: the last one used)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="as given to focal-lab sweep")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: as many as last time)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as given to focal-lab sweep"
    )
    parser.add_argument("--long", action="store_true", help="one row per run instead of one per cell")
    return parser


def _refuse_plan_options(options: argparse.Namespace) -> None:
    """Never ignore a setting in silence: these say which runs a sweep consists of."""
    given = {
        "--suite": options.suite,
        "--tasks": options.tasks,
        "--seeds": options.seeds,
        "--set": options.set,
    }
    for name, value in given.items():
        if value not in (None, []):
            raise UserError(f"{name} needs a SWEEP (focal-lab report SWEEP {name} ...)")


def _check_has_runs(out: Path) -> None:
    from focal_lab.ablation.outcomes import run_folders

    if out.exists() and not out.is_dir():
        raise UserError("is not a folder", file=out)
    if next(run_folders(out), None) is None:
        state = "holds no runs yet" if out.exists() else "does not exist"
        raise UserError(
            f"{state} (train some: focal-lab sweep sweeps/window_size.yaml --out {out})", file=out
        )


def _table(plan: "Plan", out: Path, format: str, stream: TextIO | None = None) -> str:
    from focal_lab.report.render import TABLE_FORMATS, table_text
    from focal_lab.report.table import build_table

    table = build_table(plan, out)
    if format == "text":
        width, color = _terminal(stream or sys.stdout)
        return table_text(table, width, color=color)
    return TABLE_FORMATS[format](table)


def _sweep_long(plan: "Plan", out: Path, format: str) -> str:
    from focal_lab.report.frame import label_column, sweep_rows

    factors = dict.fromkeys(factor for cell in plan.cells for factor in cell.labels)
    return _long(sweep_rows(plan, out), [label_column(factor) for factor in factors], format, sys.stdout)


def _long(rows: list[dict[str, object]], labels: list[str], format: str, stream: TextIO) -> str:
    from focal_lab.report.render import LONG_FORMATS, long_text

    if format == "text":
        width, color = _terminal(stream)
        return long_text(rows, labels, width, color=color)
    return LONG_FORMATS[format](rows, labels)


def _terminal(stream: TextIO) -> tuple[int | None, bool]:
    """Width and whether to colour: a pipe gets everything unfolded and plain."""
    if not stream.isatty():
        return None, False
    return shutil.get_terminal_size((100, 24)).columns, True


def _write(text: str, stream: TextIO) -> None:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        encoding = stream.encoding
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # `| head` has seen enough; without this Python complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
