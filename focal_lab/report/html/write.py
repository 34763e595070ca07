"""`focal-lab report SWEEP --format html`, `--open`, `--watch`: write the page, again and again if asked."""

import argparse
import gc
import sys
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.formats.grid import row_name
from focal_lab.report.html.page import draw_plots, page, page_command
from focal_lab.report.html.svg import Drawn
from focal_lab.report.table.build import build_table
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.run_folder.result import FAILURE_FILE, RESULT_FILE
from focal_lab.training.history_file import HISTORY_FILE
from focal_lab.utils.atomic_files import write_atomic

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

REPORTS = "reports"
# Drawing takes a second or two; faster than this nobody reads.
_SHORTEST = 1.0
Fingerprint = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass
class _Seen:
    """What the plots were drawn from, and the plots."""

    fingerprint: Fingerprint | None = None
    plots: Sequence[Drawn] = ()


def write_page(make_plan: Callable[[], "Plan"], out: Path, options: argparse.Namespace) -> int:
    """Write the page of a sweep; the exit status.

    Args:
        make_plan: the plan as it is now; of a search it grows.
        out: where the runs are.
        options: `output` (default: `<out>/reports/<sweep>.html`), `open`, `watch` (seconds or None),
            `strict`; and `suite`, `tasks`, `seeds`, `set` as they were given, for the page to say.

    Raises:
        UserError: the sweep is wrong, seconds make no sense, or the file cannot be written.
    """
    watch: float | None = options.watch
    if watch is not None and not _SHORTEST <= watch < float("inf"):
        raise UserError(f"{watch:g} is no number of seconds from {_SHORTEST:g} on", key="--watch")
    seen = _Seen()
    plan = make_plan()
    target: Path = options.output or out / REPORTS / f"{plan.sweep.name}.html"
    table, ended = _write(plan, out, target, options, seen, watch)
    print(target.resolve().as_uri() if options.open else target, flush=True)
    if options.open and not webbrowser.open(target.resolve().as_uri()):
        print("focal-lab: found no browser; open the file by hand", file=sys.stderr)
    if watch is not None and not ended:
        table = _watch(make_plan, out, target, options, seen, watch)
    return _strict(table) if options.strict else 0


def _watch(
    make_plan: Callable[[], "Plan"],
    out: Path,
    target: Path,
    options: argparse.Namespace,
    seen: _Seen,
    seconds: float,
) -> Table:
    """Write until all runs have ended, or Ctrl-C; the last page no longer loads itself again."""
    print(f"watching: written every {seconds:g} s until all runs have ended; Ctrl-C ends it", file=sys.stderr)
    try:
        while True:
            # figures are full of cycles, and a report's command does without the collector
            gc.collect()
            time.sleep(seconds)
            table, ended = _write(make_plan(), out, target, options, seen, seconds)
            if ended:
                print("all runs have ended", file=sys.stderr)
                return table
    except KeyboardInterrupt:
        return _write(make_plan(), out, target, options, seen, None)[0]


def _write(
    plan: "Plan", out: Path, target: Path, options: argparse.Namespace, seen: _Seen, refresh: float | None
) -> tuple[Table, bool]:
    """Read everything again and write the page; the table, and whether all runs have ended.

    A page of ended runs has no reason to load itself again.
    """
    table = build_table(plan, out)
    fingerprint = _fingerprint(table, out)
    if seen.fingerprint != fingerprint:
        seen.plots = draw_plots(table, plan, out)
        seen.fingerprint = fingerprint
    ended = _have_ended(plan, table)
    command = page_command(table, out, _given(options))
    text = page(table, plan, out, refresh=None if ended else refresh, plots=seen.plots, command=command)
    try:
        write_atomic(target, text)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}", key="--output") from error
    return table, ended


def _have_ended(plan: "Plan", table: Table) -> bool:
    """Whether every planned run has a result or a failure, and a search has all its runs."""
    states = {run.run: run.state for row in table.rows for run in row.runs}
    if State.MISSING in states.values():
        return False
    return plan.recipe is None or len(states) >= plan.recipe.trials


def _fingerprint(table: Table, out: Path) -> Fingerprint:
    """What plots depend on: which run is in which row and state, and when its curves were written."""
    found = []
    for row in table.rows:
        for run in row.runs:
            files = (RESULT_FILE, FAILURE_FILE, HISTORY_FILE)
            written = tuple(_written(out / run.run / name) for name in files)
            found.append((row_name(row), run.run, written))
    return tuple(found)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _given(options: argparse.Namespace) -> list[str]:
    """Options that say which runs the page is about."""
    given: list[str] = []
    if getattr(options, "suite", None):
        given += ["--suite", options.suite]
    if getattr(options, "tasks", None):
        given += ["--tasks", *options.tasks]
    if getattr(options, "seeds", None):
        given += ["--seeds", str(options.seeds)]
    for setting in getattr(options, "set", None) or []:
        given += ["--set", setting]
    return given


def _strict(table: Table) -> int:
    from focal_lab.report.command import say_shortcomings
    from focal_lab.report.table.strict import shortcomings

    return say_shortcomings(shortcomings(table))
