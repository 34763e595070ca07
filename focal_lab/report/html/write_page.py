"""Writes the page of a sweep, once or while runs come in: `focal-lab report --format html`, `--watch`."""

import argparse
import sys
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.command_line import command
from focal_lab.errors import UserError
from focal_lab.report.html.page import draw_plots, page
from focal_lab.report.plots.style import Plot
from focal_lab.report.table.build import build_table
from focal_lab.report.table.notes import strict_status
from focal_lab.report.table.records import Table
from focal_lab.sweep.run_folder.outcome import State
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
        self._plots: Sequence[tuple[Plot, str]] = ()

    def write(self, plan: "Plan", refresh: float | None) -> bool:
        """Read everything again and write the page; whether all runs have ended."""
        self.table = build_table(plan, self._out)
        runs = {run.run: run.state for row in self.table.rows for run in row.runs}
        seen = [(row.labels, [self._written(run.run) for run in row.runs]) for row in self.table.rows]
        if seen != self._seen:
            self._plots, self._seen = draw_plots(self.table, plan, self._out), seen
        ended = State.MISSING not in runs.values() and (plan.space is None or len(runs) >= plan.space.trials)
        text = page(
            self.table,
            plan,
            self._out,
            refresh=None if ended else refresh,
            plots=self._plots,
            command=self._command(plan),
        )
        try:
            write_atomic(self._target, text)
        except OSError as error:
            raise UserError(f"cannot write {self._target}: {error.strerror}", key="--output") from error
        return ended

    def _written(self, run: str) -> int | None:
        """When one of the run's files was last replaced."""
        folder = self._out / run
        return folder.stat().st_mtime_ns if folder.exists() else None

    def _command(self, plan: "Plan") -> str:
        """The command that writes this page."""
        options, words = self._options, ["report", plan.sweep.path, "--format", "html"]
        words += [] if self._out == Path("runs") else ["--out", self._out]
        words += ["--suite", options.suite] if options.suite else []
        words += ["--tasks", *options.tasks] if options.tasks else []
        words += ["--seeds", options.seeds] if options.seeds else []
        return command(*words, *(word for setting in options.set for word in ("--set", setting)))
