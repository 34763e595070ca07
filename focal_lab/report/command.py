"""`focal-lab report`: the paper's table of a sweep, or all runs as one long table."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, add_out, command
from focal_lab.errors import UserError
from focal_lab.report.formats.render import LONG_FORMATS, TABLE_FORMATS, table_text
from focal_lab.report.html.write_page import write_page
from focal_lab.report.plots import save_plots
from focal_lab.report.table.build import build_table, recall_sweep
from focal_lab.report.table.left_out import left_out
from focal_lab.report.table.long_table import runs_table, sweep_runs_table
from focal_lab.report.table.notes import strict_status
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.utils.garbage import rare_collection

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

FORMATS = (*TABLE_FORMATS, "html")
_EPILOG = """examples:
  focal-lab report window_size                    measured beside published, in the paper's layout
  focal-lab report window_size --format markdown  the same for a README
  focal-lab report window_size --plots plots      the same, and its plots as PNG, SVG and PDF
  focal-lab report window_size --open             a page with tables, plots and the settings of every run
  focal-lab report --format csv > runs.csv        every run with everything that is known about it"""


def main(argv: list[str]) -> int:
    """Print the report to stdout; the exit status.

    Args:
        argv: what follows `focal-lab report`.

    Raises:
        UserError: there are no runs, the sweep does not exist or is invalid, or options conflict.
    """
    options = _checked(_parser().parse_args(argv))
    with rare_collection():
        return _report(options)


def _report(options: argparse.Namespace) -> int:
    """Print what the options ask for; the exit status."""
    out: Path = options.out
    check_has_runs(out, (lambda: _plan(options)) if options.sweep else None)
    if options.sweep is None:
        _emit(LONG_FORMATS, runs_table(out), options)
        return 0
    plan = _plan(options)
    table = build_table(plan, out)
    if options.plots is not None:
        written = save_plots(table, plan, out, options.plots)
        print(f"{len(written)} files with plots in {options.plots}", file=sys.stderr)
    if options.format == "html":
        return write_page(lambda: _plan(options), out, options)
    if options.long or options.format in ("csv", "parquet"):  # which have no notes
        for sentence in (*left_out(plan, out), *table.provenance.mixed_tests):
            print(f"focal-lab: {sentence}", file=sys.stderr)
    if options.long:
        _emit(LONG_FORMATS, sweep_runs_table(plan, out), options)
    else:
        _emit(TABLE_FORMATS, table, options)
    return strict_status(table) if options.strict else 0


def print_table(plan: "Plan", out: Path, trained_by: str | None = None) -> None:
    """Print a plan's table, finished or not; in colours on a terminal.

    Args:
        plan: which runs, in which rows.
        out: the folder of the runs.
        trained_by: the command that trains what is missing; see `build_table`.

    Raises:
        UserError: the sweep names a published table that does not exist.
    """
    _print(table_text(build_table(plan, out, trained_by), **_terminal()))


def _plan(options: argparse.Namespace) -> "Plan":
    given = {"suite": options.suite, "tasks": options.tasks, "seeds": options.seeds}
    return recall_sweep(options.sweep, options.out, overrides=options.set, **given)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab report",
        description="Print a sweep's table, measured beside published numbers; or all runs in one table.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("sweep", nargs="?", metavar="SWEEP", help="sweep file or name (default: all runs)")
    add_out(parser)
    add("--format", choices=FORMATS, help="default: text")
    add(
        *("--output", "-o"),
        type=Path,
        metavar="FILE",
        help="output file (default: print; page: OUT/reports/SWEEP.html)",
    )
    add(
        "--strict",
        action="store_true",
        help="exit 1 if cells are missing, failed or pruned, or runs differ in commit, versions or data",
    )
    add("--plots", type=Path, metavar="FOLDER", help="also write every plot to FOLDER, as PNG, SVG and PDF")
    add("--open", action="store_true", help="write the page and open it in a browser")
    add(
        "--watch",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="rewrite the page every 10 s, or SECONDS, until all runs have ended or Ctrl-C",
    )
    add("--suite", help="suite that the runs were trained on (default: the last one used)")
    add("--tasks", nargs="+", metavar="TASK", help="as given to focal-lab sweep")
    add("--seeds", type=int, help="number of seeds (default: as many as last time)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as given to focal-lab sweep")
    add("--long", action="store_true", help="one row per run instead of one per cell")
    return parser


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Refuse options that would be ignored."""
    if options.open or options.watch is not None:
        if options.format not in (None, "html"):
            raise UserError("--open and --watch show the page; drop --format, or use --format html")
        options.format = "html"
    options.format = options.format or "text"
    if options.sweep is None:
        for name in ("suite", "tasks", "seeds", "set", "strict", "plots"):
            value = getattr(options, name)
            if value is not None and value is not False and value != []:
                raise UserError(f"--{name} needs a SWEEP (focal-lab report SWEEP --{name} ...)")
        if options.format == "html":
            raise UserError("the page shows one sweep (focal-lab report SWEEP --format html)")
    if options.format == "parquet" and options.output is None:
        raise UserError("parquet is not text; name a file: --output table.parquet", key="--format")
    if options.long and (options.strict or options.format == "html"):
        raise UserError("prints a table of runs; drop --strict and --format html", key="--long")
    return options


def check_has_runs(out: Path, plan: Callable[[], "Plan"] | None = None) -> None:
    """Refuse a folder without runs, with the command that trains those of the plan, or some.

    Raises:
        UserError: `out` is not a folder, does not exist, or has no runs.
    """
    if out.exists() and not out.is_dir():
        raise UserError("is not a folder", file=out)
    if next(run_folders(out), None) is None:
        state = "holds no runs yet" if out.exists() else "does not exist"
        train = plan().command(out) if plan else command("sweep", "sweeps/window_size.yaml", "--out", out)
        raise UserError(f"{state} (train some: {train})", file=out)


def _emit(formats: Mapping[str, Callable[..., Any]], content: object, options: argparse.Namespace) -> None:
    """Print a table in the requested format, or write it to the file."""
    output: Path | None = options.output
    terminal = _terminal() if output is None and options.format == "text" else {}
    made = formats[options.format](content, **terminal)
    if output is None:
        _print(str(made))
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(made if isinstance(made, bytes) else made.encode())
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}", key="--output") from error


def _terminal() -> dict[str, Any]:
    """Width and colour of a terminal; a pipe gets everything unwrapped and plain."""
    if not sys.stdout.isatty():
        return {}
    return {"width": shutil.get_terminal_size((100, 24)).columns, "color": True}


def _print(text: str) -> None:
    """Print; if the reader has exited, as in `| head`, the command still exits with its own status."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
