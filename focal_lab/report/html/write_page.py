"""Writes the page of a sweep, once or while runs come in: `focal-lab report --format html`, `--watch`."""

import argparse
import gc
import shlex
import sys
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.html.page import draw_plots, page
from focal_lab.report.html.svg import InlinePlot
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Table
from focal_lab.report.table.strict import strict_status
from focal_lab.sweep.run_folder.layout import FAILURE_FILE, RESULT_FILE
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.training.history_file import HISTORY_FILE
from focal_lab.utils.atomic_files import write_atomic

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

REPORTS = "reports"
# Drawing takes a second or two.
_SHORTEST = 1.0


def write_page(make_plan: Callable[[], "Plan"], out: Path, options: argparse.Namespace) -> int:
    """Write the page of a sweep; the exit status.

    Args:
        make_plan: the current plan; that of a search grows.
        out: folder of the runs.
        options: `output` (default: `<out>/reports/<sweep>.html`), `open`, `watch` (seconds or None),
            `strict`, and `suite`, `tasks`, `seeds`, `set` as given by the user.

    Raises:
        UserError: the sweep or the number of seconds is invalid, or the file cannot be written.
    """
    seconds: float | None = options.watch
    if seconds is not None and not _SHORTEST <= seconds < float("inf"):
        raise UserError(f"{seconds:g} is not a number of seconds; use {_SHORTEST:g} or more", key="--watch")
    plan = make_plan()
    target: Path = options.output or out / REPORTS / f"{plan.sweep.name}.html"
    writer = _Writer(out, target, options)
    ended = writer.write(plan, seconds)
    print(target.resolve().as_uri() if options.open else target, flush=True)
    if options.open and not webbrowser.open(target.resolve().as_uri()):
        print("focal-lab: no browser found; open the file yourself", file=sys.stderr)
    if seconds is not None and not ended:
        _watch(writer, make_plan, seconds)
    return strict_status(writer.table) if options.strict else 0


def _watch(writer: "_Writer", make_plan: Callable[[], "Plan"], seconds: float) -> None:
    """Write until all runs have ended, or Ctrl-C; the last page does not reload itself."""
    ended = False
    print(
        f"watching: rewritten every {seconds:g} s until all runs have ended; press Ctrl-C to stop",
        file=sys.stderr,
    )
    try:
        while not ended:
            gc.collect()  # figures have reference cycles, and a report's command disables the collector
            time.sleep(seconds)
            ended = writer.write(make_plan(), seconds)
        print("all runs have ended", file=sys.stderr)
    except KeyboardInterrupt:
        writer.write(make_plan(), None)


class _Writer:
    """Writes the page, drawing plots only when a run has changed."""

    table: Table

    def __init__(self, out: Path, target: Path, options: argparse.Namespace) -> None:
        self._out, self._target, self._options = out, target, options
        self._seen: object = None
        self._plots: Sequence[InlinePlot] = ()

    def write(self, plan: "Plan", refresh: float | None) -> bool:
        """Read everything again and write the page; whether all runs have ended."""
        self.table = build_table(plan, self._out)
        runs = {run.run: run.state for row in self.table.rows for run in row.runs}
        seen = [
            (tuple(row.labels.items()), [self._times(run.run) for run in row.runs]) for row in self.table.rows
        ]
        if seen != self._seen:
            self._plots, self._seen = draw_plots(self.table, plan, self._out), seen
        ended = State.MISSING not in runs.values() and (plan.space is None or len(runs) >= plan.space.trials)
        refresh, command = None if ended else refresh, self._command(plan)
        text = page(self.table, plan, self._out, refresh=refresh, plots=self._plots, command=command)
        try:
            write_atomic(self._target, text)
        except OSError as error:
            raise UserError(f"cannot write {self._target}: {error.strerror}", key="--output") from error
        return ended

    def _times(self, run: str) -> list[object]:
        """The run and when its files were written."""
        paths = [self._out / run / name for name in (RESULT_FILE, FAILURE_FILE, HISTORY_FILE)]
        return [run, *(path.stat().st_mtime_ns if path.exists() else None for path in paths)]

    def _command(self, plan: "Plan") -> str:
        """The command that writes this page."""
        options, words = self._options, ["focal-lab", "report", str(plan.sweep.path), "--format", "html"]
        words += [] if self._out == Path("runs") else ["--out", str(self._out)]
        words += ["--suite", options.suite] if options.suite else []
        words += ["--tasks", *options.tasks] if options.tasks else []
        words += ["--seeds", str(options.seeds)] if options.seeds else []
        return shlex.join([*words, *(word for setting in options.set for word in ("--set", setting))])
