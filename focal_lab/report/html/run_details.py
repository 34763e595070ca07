"""The runs of a page: settings that differ from the baseline's, numbers, and the reasons of failures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.html.sortable import HtmlCell, HtmlHeading, HtmlTable, word_cell
from focal_lab.report.plots.style import heading
from focal_lab.report.table.long_table import flatten
from focal_lab.report.table.records import NOTHING, PlannedRun, Row, Table, row_name, runs_words
from focal_lab.sweep.run_folder.layout import last_lines
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import COSTS
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MAX_LINES, _MAX_CHARACTERS, _MAX_FAILURES = 12, 240, 40
# The one setting that differs between the seeds of a cell.
_SEED = "seed_everything"


@dataclass(frozen=True)
class ChangedSetting:
    """A setting that differs from the baseline's."""

    key: str
    baseline: str
    value: str


@dataclass(frozen=True)
class RunsOfTask:
    """Runs of a cell and task with the same settings; `against`: the baseline, None for itself."""

    task: str
    against: str | None
    settings: tuple[ChangedSetting, ...]
    runs: HtmlTable


@dataclass(frozen=True)
class RunGroup:
    """A row of the table and its runs."""

    name: str
    words: HtmlCell
    parts: tuple[RunsOfTask, ...]


@dataclass(frozen=True)
class FailedRun:
    """A run without a result, the reason, and the last lines that it printed."""

    title: str
    run: str
    state: HtmlCell
    reason: str
    lines: list[str]


def run_groups(table: Table, plan: "Plan", out: Path) -> list[RunGroup]:
    """A group for each row, in the table's order."""
    outcomes = {run.run: read_outcome(out / run.run) for row in table.rows for run in row.runs}
    planned = {run.id: getattr(run, "config", None) or {} for run in plan.runs}
    settings = {name: _settings(outcome, planned.get(name, {})) for name, outcome in outcomes.items()}
    first = next((row for row in table.rows if not row.reference), None)
    groups = []
    for index, row in enumerate(table.rows):
        if row.reference:
            continue
        baseline = None if row.baseline is None else table.rows[row.baseline]
        if baseline is None and all(other.baseline != index for other in table.rows):
            baseline = first  # of a search, or where there is none
        parts: list[RunsOfTask] = []
        against = row_name(baseline) if baseline is not None and baseline is not row else None
        for place, task in enumerate(dict.fromkeys(run.task for run in row.runs)):
            alike = _alike(row, baseline or row, task, settings)
            for number, (changed, runs) in enumerate(alike.items()):
                shown = _run_table(f"runs-{index}-{place}-{number}", runs, outcomes, out)
                parts.append(RunsOfTask(task, against, changed, shown))
        groups.append(RunGroup(row_name(row), word_cell(runs_words(row)), tuple(parts)))
    return groups


def failed_runs(table: Table, out: Path) -> tuple[list[FailedRun], int]:
    """Runs that failed or whose result is damaged, and how many more there are than are shown."""
    found: dict[str, FailedRun] = {}
    for row in table.rows:
        for run in row.runs:
            if run.run in found or run.state not in (State.FAILED, State.CORRUPT):
                continue
            failure = read_outcome(out / run.run).failure
            lines = failure.last_lines if failure and failure.last_lines else last_lines(out / run.run)
            clean = [line for line in map(_printed, lines) if line][-_MAX_LINES:]
            title = f"{row_name(row)}, {run.task}, seed {run.seed}"
            found[run.run] = FailedRun(title, run.run, word_cell(run.state), run.reason or "", clean)
    return list(found.values())[:_MAX_FAILURES], max(0, len(found) - _MAX_FAILURES)


def _settings(outcome: Outcome, planned: Mapping[str, Any]) -> dict[str, str]:
    """The settings that ran, or would have, as dotted keys without `init_args`."""
    config = outcome.result.config if outcome.result else planned
    flat = {key: leaf for part in config for key, leaf in flatten(config[part], str(part)).items()}
    return {key.replace(".init_args.", "."): _as_yaml(value) for key, value in flat.items() if key != _SEED}


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printed(line: str) -> str:
    """A line as a terminal shows it: no escape codes, only the last state of a progress bar."""
    text = _ESCAPE_CODE.sub("", line.rstrip().rpartition("\r")[2])
    text = "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _alike(
    row: Row, baseline: Row, task: str, settings: Mapping[str, dict[str, str]]
) -> dict[tuple[ChangedSetting, ...], list[PlannedRun]]:
    """Runs of a task by their difference from the baseline; those without known settings join the first."""
    theirs = [run for run in baseline.runs if run.task == task]
    alike: dict[tuple[ChangedSetting, ...], list[PlannedRun]] = {}
    unknown = []
    for run in (run for run in row.runs if run.task == task):
        # the baseline's run of the same seed, or the first one that is known
        best = min(theirs, key=lambda other: (not settings[other.run], other.seed != run.seed), default=None)
        mine, other = settings[run.run], settings[best.run] if best else {}
        if not mine or not other:
            unknown.append(run)
            continue
        changed = tuple(
            ChangedSetting(key, other.get(key, "not set"), mine.get(key, "not set"))
            for key in dict.fromkeys([*other, *mine])
            if mine.get(key) != other.get(key)
        )
        alike.setdefault(changed, []).append(run)
    alike.setdefault(next(iter(alike), ()), []).extend(unknown)
    return alike


def _run_table(
    name: str, runs: Sequence[PlannedRun], outcomes: Mapping[str, Outcome], out: Path
) -> HtmlTable:
    results = {run.run: outcomes[run.run].result for run in runs}
    metrics = {key for result in results.values() if result for key in result.metrics}
    keys = [*(key for key in COLUMNS if key in metrics), *sorted(metrics.difference(COLUMNS))]
    keys += COSTS if any(results.values()) else ()
    titles = [heading(COLUMNS[key].title) if key in COLUMNS else key for key in keys]
    headings = [HtmlHeading("seed", "measured", numeric=True), HtmlHeading("state", "state", numeric=False)]
    headings += [HtmlHeading(title, "measured", numeric=True) for title in titles]
    rows = []
    for run in runs:
        result = results[run.run]
        numbers = result.metrics | {key: float(getattr(result, key)) for key in COSTS} if result else {}
        cells = [HtmlCell(str(run.seed), float(run.seed)), word_cell(run.state)]
        cells += [_number(key, numbers.get(key)) for key in keys]
        rows.append((*cells, HtmlCell(str(out / run.run))))
    return HtmlTable(name, "Runs", (*headings, HtmlHeading("folder", "folder", numeric=False)), tuple(rows))


def _number(key: str, value: float | None) -> HtmlCell:
    if value is None:
        return HtmlCell(NOTHING)
    column = COLUMNS.get(key)
    return HtmlCell(f"{value * column.scale:.{column.digits}f}" if column else f"{value:.4g}", value)
