"""The runs of a page: settings that differ from the baseline's, numbers, and the reasons of failures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.formats.grid import Strip, number_strip
from focal_lab.report.table.long_table import flat_settings
from focal_lab.report.table.records import PlannedRun, Row, Table, shown_name
from focal_lab.sweep.run_folder.layout import last_lines
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import COSTS
from focal_lab.sweep.spec.columns import COLUMNS, Column

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MAX_LINES, _MAX_CHARACTERS = 12, 240
# The one setting that differs between the seeds of a cell.
_SEED = "seed_everything"


@dataclass(frozen=True)
class RunsOfTask:
    """The runs of a cell and task.

    Attributes:
        against: name of the baseline; None for itself.
        settings: those that differ from the baseline's, as (name, the baseline's, own).
    """

    task: str
    against: str | None
    settings: list[tuple[str, str, str]]
    runs: list[Strip]


def run_groups(table: Table, plan: "Plan", out: Path) -> list[tuple[Row, list[RunsOfTask]]]:
    """Each row of the sweep with its runs."""
    outcomes = {run.run: read_outcome(out / run.run) for row in table.rows for run in row.runs}
    settings = {run.id: run.config for run in plan.runs}
    settings |= {name: found.result.config for name, found in outcomes.items() if found.result}
    first = next((row for row in table.rows if not row.reference), None)
    groups = []
    for index, row in enumerate(table.rows):
        if row.reference:
            continue
        baseline = None if row.baseline is None else table.rows[row.baseline]
        if baseline is None and all(other.baseline != index for other in table.rows):
            baseline = first  # of a search, or where there is none
        against = shown_name(baseline) if baseline is not None and baseline is not row else None
        parts = []
        for task in dict.fromkeys(run.task for run in row.runs):
            runs = [run for run in row.runs if run.task == task]
            theirs = [run for run in (baseline or row).runs if run.task == task]
            changed = _changed(*(_first_known(of, settings) for of in (theirs, runs)))
            parts.append(RunsOfTask(task, against, changed, _run_grid(runs, outcomes, out)))
        groups.append((row, parts))
    return groups


def failed_runs(table: Table, out: Path) -> list[tuple[Row, PlannedRun, list[str]]]:
    """Runs that failed or whose result is damaged, their rows, and the last lines that they printed."""
    found: dict[str, tuple[Row, PlannedRun, list[str]]] = {}
    for row in table.rows:
        for run in row.runs:
            if run.run not in found and run.state in (State.FAILED, State.CORRUPT):
                failure = read_outcome(out / run.run).failure
                lines = failure.last_lines if failure and failure.last_lines else last_lines(out / run.run)
                clean = [line for line in map(_printed, lines) if line][-_MAX_LINES:]
                found[run.run] = (row, run, clean)
    return list(found.values())


def _first_known(runs: Sequence[PlannedRun], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The settings that the runs of a cell and task share."""
    known = next((settings[run.run] for run in runs if settings[run.run]), {})
    return {key: _as_yaml(value) for key, value in flat_settings(known).items() if key != _SEED}


def _changed(baseline: Mapping[str, str], own: Mapping[str, str]) -> list[tuple[str, str, str]]:
    if not baseline or not own:
        return []
    return [
        (key, baseline.get(key, "not set"), own.get(key, "not set"))
        for key in dict.fromkeys([*baseline, *own])
        if baseline.get(key) != own.get(key)
    ]


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printed(line: str) -> str:
    """A line as a terminal shows it: no escape codes, only the last state of a progress bar."""
    text = _ESCAPE_CODE.sub("", line.rstrip().rpartition("\r")[2])
    text = "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _run_grid(runs: Sequence[PlannedRun], outcomes: Mapping[str, Outcome], out: Path) -> list[Strip]:
    results = [outcomes[run.run].result for run in runs]
    known = [
        result.metrics | {key: getattr(result, key) for key in COSTS} if result else {} for result in results
    ]
    metrics = {key for numbers in known for key in numbers}.difference(COSTS)
    keys = [*(key for key in COLUMNS if key in metrics), *sorted(metrics.difference(COLUMNS))]
    keys += COSTS if any(results) else ()
    seeds = [run.seed for run in runs]
    return [
        Strip("seed", tuple(map(str, seeds)), "measured", tuple(map(float, seeds))),
        Strip("state", tuple(str(run.state) for run in runs), "state"),
        *(
            number_strip(
                COLUMNS.get(key, Column(key, key, digits=4)), [numbers.get(key) for numbers in known]
            )
            for key in keys
        ),
        Strip("folder", tuple(str(out / run.run) for run in runs), "folder"),
    ]
