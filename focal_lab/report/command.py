"""`focal-lab report`: the paper's table of a sweep, or all runs as one long table."""

import argparse
import gc
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from focal_lab.command_line import CommandParser, add_out, command
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.report.table.model import Table
    from focal_lab.sweep.plan.plan import Plan

FORMATS = ("text", "markdown", "latex", "csv", "json", "parquet", "html")
# For an output that knows ASCII only, such as a pipe under LC_ALL=C.
_ASCII = str.maketrans({"±": "+-", "–": "-", "─": "-", "━": "-", "…": "..."})  # noqa: RUF001
_EPILOG = """examples:
  focal-lab report window_size                    measured beside published, in the paper's layout
  focal-lab report window_size --format markdown  the same for a README
  focal-lab report window_size --plots pictures   the same, and plots of it as PNG, SVG and PDF
  focal-lab report window_size --open             a page with tables, plots and what every run was
  focal-lab report --format csv > runs.csv        every run with everything that is known about it"""
NOT_STRICT = 1


def main(argv: list[str]) -> int:
    """Print the report to stdout; the exit status.

    Args:
        argv: what follows `focal-lab report`.

    Raises:
        UserError: no runs, no such sweep, or a sweep that is wrong.
    """
    options = _checked(_parser().parse_args(argv))
    # ten thousand records are read and nothing is thrown away: looking for garbage takes a third of the time
    gc.disable()
    try:
        return _report(options)
    finally:
        gc.enable()


def _report(options: argparse.Namespace) -> int:
    out: Path = options.out
    _check_has_runs(options)
    if options.sweep is None:
        from focal_lab.report.table.long_table import all_rows

        _emit(_long(all_rows(out), [], options.format, options.output), options.output)
        return 0
    plan = _plan(options)
    if options.plots is not None:
        _write_plots(plan, out, options.plots)
    if options.format == "html":
        from focal_lab.report.html.write_page import write_page

        return write_page(lambda: _plan(options), out, options)
    if options.long or options.format in ("csv", "parquet"):  # which have no notes
        from focal_lab.report.table.left_out import left_out

        for sentence in left_out(plan, out):
            print(f"focal-lab: {sentence}", file=sys.stderr)
        if options.long:
            _say_mixed_tests(plan, out)
    if options.long:
        _emit(_sweep_long(plan, out, options.format, options.output), options.output)
        return 0
    from focal_lab.report.table.build import build_table
    from focal_lab.report.table.strict import shortcomings

    table = build_table(plan, out)
    if options.format in ("csv", "parquet"):
        for sentence in table.provenance.mixed_tests:
            print(f"focal-lab: {sentence}", file=sys.stderr)
    _emit(_table_as(table, options.format, options.output), options.output)
    return say_shortcomings(shortcomings(table)) if options.strict else 0


def _say_mixed_tests(plan: "Plan", out: Path) -> None:
    from focal_lab.report.table.build import build_table

    for sentence in build_table(plan, out).provenance.mixed_tests:
        print(f"focal-lab: {sentence}", file=sys.stderr)


def _write_plots(plan: "Plan", out: Path, folder: Path) -> None:
    from focal_lab.report.html.page import objectives_of
    from focal_lab.report.plots import save_plots
    from focal_lab.report.table.build import build_table

    written = save_plots(build_table(plan, out), out, folder, objectives=objectives_of(plan))
    print(f"{len(written)} files with plots in {folder}", file=sys.stderr)


def say_shortcomings(found: Sequence[str]) -> int:
    """Print what keeps a table from being published; the exit status of --strict."""
    for shortcoming in found:
        print(f"focal-lab: --strict: {shortcoming}", file=sys.stderr)
    return NOT_STRICT if found else 0


def _plan(options: argparse.Namespace) -> "Plan":
    from focal_lab.sweep.plan.plan import recall_plan, with_proposals
    from focal_lab.sweep.spec.sweep_file import find_sweep

    plan = recall_plan(
        find_sweep(options.sweep),
        options.out,
        suite=options.suite,
        seeds=options.seeds,
        overrides=options.set,
        tasks=options.tasks,
    )
    return with_proposals(plan, options.out)


def print_table(
    plan: "Plan", out: Path, format: str = "text", file: TextIO | None = None, trained_by: str | None = None
) -> None:
    """Print a plan's table, finished or not.

    Args:
        plan: which runs, in which rows.
        out: the folder of the runs.
        format: one of FORMATS.
        file: where to; stdout by default. Colours only if it is a terminal.
        trained_by: the command that trains what is missing; see `build_table`.

    Raises:
        UserError: the sweep names a published table or a column that does not exist.
    """
    from focal_lab.report.table.build import build_table

    stream = file or sys.stdout
    _write(str(_table_as(build_table(plan, out, trained_by), format, None, stream)), stream)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab report",
        description="Measured numbers and their spread beside the published ones; or every run in one table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="sweep file or its name; none: all runs")
    add_out(parser)
    parser.add_argument("--format", choices=FORMATS, help="default: text")
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        help="write there (default: print; page: OUT/reports/SWEEP.html)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit 1 when a number is missing, failed or pruned, or runs differ in commit, versions or data",
    )
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="also write every plot there, as PNG, SVG and PDF"
    )
    parser.add_argument("--open", action="store_true", help="write the page and show it in a browser")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="write the page again and again (every 10 s) while runs come in; Ctrl-C ends it",
    )
    parser.add_argument("--suite", help="the suite the runs were trained on (default: the last one used)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="as given to focal-lab sweep")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: as many as last time)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as given to focal-lab sweep"
    )
    parser.add_argument("--long", action="store_true", help="one row per run instead of one per cell")
    return parser


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Never ignore a setting in silence."""
    if options.open or options.watch is not None:
        if options.format not in (None, "html"):
            raise UserError("--open and --watch show the page; drop --format, or say --format html")
        options.format = "html"
    options.format = options.format or "text"
    if options.sweep is None:
        # these say which runs a sweep consists of, or what becomes of its table
        given = {
            "--suite": options.suite,
            "--tasks": options.tasks,
            "--seeds": options.seeds,
            "--set": options.set,
            "--strict": options.strict,
            "--plots": options.plots,
        }
        for name, value in given.items():
            if value is not None and value is not False and value != []:
                raise UserError(f"{name} needs a SWEEP (focal-lab report SWEEP {name} ...)")
        if options.format == "html":
            raise UserError("the page is one of a sweep (focal-lab report SWEEP --format html)")
    if options.format == "parquet" and options.output is None:
        raise UserError("parquet is no text; say where to: --output table.parquet", key="--format")
    if options.long and (options.strict or options.format == "html"):
        raise UserError("is a table of runs; drop --strict and --format html", key="--long")
    return options


def _check_has_runs(options: argparse.Namespace) -> None:
    from focal_lab.sweep.run_folder.outcome import run_folders

    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise UserError("is not a folder", file=out)
    if next(run_folders(out), None) is None:
        state = "holds no runs yet" if out.exists() else "does not exist"
        if options.sweep is None:
            train = command("sweep", "sweeps/window_size.yaml", "--out", out)
        else:
            train = _make_plan(options).command(out)
        raise UserError(f"{state} (train some: {train})", file=out)


def _make_plan(options: argparse.Namespace) -> "Plan":
    """The plan that the options ask for, whatever lies in the folder of runs."""
    from focal_lab.sweep.plan.plan import make_plan
    from focal_lab.sweep.spec.sweep_file import find_sweep

    return make_plan(
        find_sweep(options.sweep),
        suite=options.suite,
        seeds=options.seeds,
        overrides=options.set,
        tasks=options.tasks,
    )


def _table_as(table: "Table", format: str, output: Path | None, stream: TextIO | None = None) -> str | bytes:
    from focal_lab.report.formats.render import TABLE_FORMATS, flat_rows, table_text

    if format == "text":
        width, color = (None, False) if output else _terminal(stream or sys.stdout)
        return table_text(table, width, color=color)
    if format == "parquet":
        from focal_lab.report.table.long_table import parquet

        return parquet(flat_rows(table))
    return TABLE_FORMATS[format](table)


def _sweep_long(plan: "Plan", out: Path, format: str, output: Path | None) -> str | bytes:
    from focal_lab.report.table.long_table import label_column, sweep_rows

    factors = dict.fromkeys(factor for cell in plan.cells for factor in cell.labels)
    return _long(sweep_rows(plan, out), [label_column(factor) for factor in factors], format, output)


def _long(rows: list[dict[str, object]], labels: list[str], format: str, output: Path | None) -> str | bytes:
    from focal_lab.report.formats.render import LONG_FORMATS, long_text

    if format == "text":
        width, color = (None, False) if output else _terminal(sys.stdout)
        return long_text(rows, labels, width, color=color)
    if format == "parquet":
        from focal_lab.report.table.long_table import long_columns, parquet

        return parquet(rows, long_columns(rows, labels))
    return LONG_FORMATS[format](rows, labels)


def _emit(content: str | bytes, output: Path | None) -> None:
    if output is None:
        _write(str(content), sys.stdout)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}", key="--output") from error


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
