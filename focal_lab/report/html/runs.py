"""What every run of a page was: its settings against the baseline's, its numbers, and why it failed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.formats.grid import NOTHING, row_name, runs_words
from focal_lab.report.html.tables import Cell, Grid, Heading, word_cell
from focal_lab.report.plots.style import heading
from focal_lab.report.table.long_table import COSTS, flatten
from focal_lab.report.table.model import PlannedRun, Table
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MOST_LINES = 12
_MOST_CHARACTERS = 240
_MOST_FAILURES = 40
# Settings that differ between the seeds of a cell, and nothing else does.
_SEED = "seed_everything"
_ABSENT = "not set"


@dataclass(frozen=True)
class Setting:
    """A setting that differs from the baseline's."""

    key: str
    baseline: str
    value: str


@dataclass(frozen=True)
class Part:
    """The runs of a cell and a task that have the same settings.

    Attributes:
        against: the baseline's name; None for the baseline itself.
        settings: where they differ; seeds are left out.
    """

    task: str
    against: str | None
    settings: tuple[Setting, ...]
    runs: Grid


@dataclass(frozen=True)
class Group:
    """A row of the table and its runs."""

    name: str
    words: Cell
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Problem:
    """A run without a result, why, and the last lines that it printed."""

    title: str
    run: str
    state: Cell
    reason: str
    lines: tuple[str, ...]


def run_groups(table: Table, plan: "Plan", out: Path) -> list[Group]:
    """A group for each row, in the table's order."""
    outcomes = _outcomes(table, out)
    planned = {run.id: getattr(run, "config", None) or {} for run in plan.runs}
    known = {name: _settings(outcome, planned.get(name, {})) for name, outcome in outcomes.items()}
    groups = []
    for index, row in enumerate(table.rows):
        if row.reference:
            continue
        place = _baseline(table, index)
        tasks = dict.fromkeys(run.task for run in row.runs)
        parts = [
            part
            for number, task in enumerate(tasks)
            for part in _parts(table, index, place, task, known, outcomes, out, f"runs-{index}-{number}")
        ]
        groups.append(Group(row_name(row), word_cell(runs_words(row)), tuple(parts)))
    return groups


def problems(table: Table, out: Path) -> tuple[list[Problem], int]:
    """Runs that failed or whose result is damaged, and how many more there are than are shown."""
    from focal_lab.sweep.worker.protocol import last_lines

    outcomes = _outcomes(table, out)
    found = []
    seen = set()
    for row in table.rows:
        for run in row.runs:
            if run.run in seen or run.state not in (State.FAILED, State.CORRUPT):
                continue
            seen.add(run.run)
            failure = outcomes[run.run].failure
            lines = list(failure.last_lines) if failure and failure.last_lines else last_lines(out / run.run)
            clean = [line for line in map(_printed, lines) if line][-_MOST_LINES:]
            title = f"{row_name(row)}, {run.task}, seed {run.seed}"
            found.append(Problem(title, run.run, word_cell(run.state), run.reason or "", tuple(clean)))
    return found[:_MOST_FAILURES], max(0, len(found) - _MOST_FAILURES)


def _outcomes(table: Table, out: Path) -> dict[str, Outcome]:
    return {run.run: read_outcome(out / run.run) for row in table.rows for run in row.runs}


def _settings(outcome: Outcome, planned: Mapping[str, Any]) -> dict[str, str]:
    """What ran, or would have: dotted keys without the words that every configuration has."""
    config = outcome.result.config if outcome.result else planned
    flat = {key: leaf for part in config for key, leaf in flatten(config[part], str(part)).items()}
    return {key.replace(".init_args.", "."): _plain(value) for key, value in flat.items() if key != _SEED}


def _plain(value: Any) -> str:
    """As YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printed(line: str) -> str:
    """What a terminal shows in the end: no cursor movements, only the last state of a progress bar."""
    text = _ESCAPE_CODE.sub("", line.rstrip().rpartition("\r")[2])
    text = "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _baseline(table: Table, index: int) -> int:
    """The row whose settings a row is shown against; of a search, and where there is none, the first one."""
    place = table.rows[index].baseline
    if place is not None:
        return place
    is_one = any(row.baseline == index for row in table.rows)
    return index if is_one else next(place for place, row in enumerate(table.rows) if not row.reference)


def _parts(
    table: Table,
    index: int,
    place: int,
    task: str,
    known: Mapping[str, dict[str, str]],
    outcomes: Mapping[str, Outcome],
    out: Path,
    name: str,
) -> list[Part]:
    runs = [run for run in table.rows[index].runs if run.task == task]
    theirs = [run for run in table.rows[place].runs if run.task == task]
    alike: dict[tuple[Setting, ...], list[PlannedRun]] = {}
    unknown = []
    for run in runs:
        found = _difference(run, theirs, known)
        if found is None:
            unknown.append(run)
        else:
            alike.setdefault(found, []).append(run)
    # runs that left nothing behind are shown with their cell's others
    alike.setdefault(next(iter(alike), ()), []).extend(unknown)
    against = None if place == index else row_name(table.rows[place])
    return [
        Part(task, against, settings, _run_grid(f"{name}-{number}", members, outcomes, out))
        for number, (settings, members) in enumerate(alike.items())
    ]


def _difference(
    run: PlannedRun, theirs: Sequence[PlannedRun], known: Mapping[str, dict[str, str]]
) -> tuple[Setting, ...] | None:
    """Against the baseline's run of the same seed, or the first one that is known; None: nothing is."""
    best = sorted(theirs, key=lambda other: (not known[other.run], other.seed != run.seed))
    if not best or not known[run.run] or not known[best[0].run]:
        return None
    mine, other = known[run.run], known[best[0].run]
    return tuple(
        Setting(key, other.get(key, _ABSENT), mine.get(key, _ABSENT))
        for key in dict.fromkeys([*other, *mine])
        if mine.get(key) != other.get(key)
    )


def _run_grid(name: str, runs: Sequence[PlannedRun], outcomes: Mapping[str, Outcome], out: Path) -> Grid:
    results = {run.run: outcomes[run.run].result for run in runs}
    metrics = dict.fromkeys(key for result in results.values() if result for key in result.metrics)
    keys = [*sorted(metrics, key=_place), *(COSTS if any(results.values()) else ())]
    titles = [heading(COLUMNS[key].title) if key in COLUMNS else key for key in keys]
    headings = [Heading("seed", "measured", numeric=True), Heading("state", "state", numeric=False)]
    headings += [Heading(title, "measured", numeric=True) for title in titles]
    headings += [Heading("folder", "folder", numeric=False)]
    rows = []
    for run in runs:
        result = results[run.run]
        numbers: dict[str, float] = {}
        if result:
            numbers = result.metrics | {key: float(getattr(result, key)) for key in COSTS}
        cells = [Cell(str(run.seed), float(run.seed)), word_cell(run.state)]
        cells += [_number(key, numbers.get(key)) for key in keys]
        rows.append((*cells, Cell(str(out / run.run))))
    return Grid(name, "Runs", tuple(headings), tuple(rows))


def _place(key: str) -> tuple[int, str]:
    known = list(COLUMNS)
    return (known.index(key) if key in COLUMNS else len(known)), key


def _number(key: str, value: float | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    column = COLUMNS.get(key)
    return Cell(f"{value * column.scale:.{column.digits}f}" if column else f"{value:.4g}", value)
