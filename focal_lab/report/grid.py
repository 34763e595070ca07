"""From numbers to words: a table, or the long table's main columns, as a grid of strings.

Terminal and Markdown show the same grid, so they cannot disagree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from focal_lab.ablation.columns import COLUMNS, Column
from focal_lab.ablation.outcomes import State
from focal_lab.report.entries import COUNTED, Entry, Row, Table
from focal_lab.report.frame import LongRow, long_columns

NOTHING = "–"  # noqa: RUF001  (the dash that papers print)
# The settings that tell runs apart are shown, as long as there is room for them.
_MOST_SETTINGS = 3
_OPTION = "model.backbone_options."
# The first metric of each task.
_HEADLINES = frozenset(
    {column.task: column.key for column in reversed(COLUMNS.values()) if column.task}.values()
)


@dataclass(frozen=True)
class Strip:
    """One column of a grid: its heading, its cells, and what they are, for alignment and colour."""

    heading: str
    cells: tuple[str, ...]
    kind: Literal["label", "measured", "paper", "state"]


def table_grid(table: Table) -> list[Strip]:
    """The columns of a sweep's table: labels, each measurement with the paper's number to its right, runs."""
    rows = table.rows
    strips = [
        Strip(factor.replace("_", " "), tuple(row.labels.get(factor, NOTHING) for row in rows), "label")
        for factor in table.factors
    ]
    for column in table.columns:
        strips += _column_strips(column, [row.entries[column.key] for row in rows])
    return [*strips, Strip("Runs", tuple(runs_words(row) for row in rows), "state")]


def _column_strips(column: Column, entries: Sequence[Entry]) -> list[Strip]:
    """One or two strips: without a published number no paper's column, without the task only the paper's."""
    words = tuple(NOTHING if entry.published is None else str(entry.published) for entry in entries)
    published = any(entry.published is not None for entry in entries)
    if published and all(entry.status == "not planned" for entry in entries):
        return [Strip(f"{column.title} paper", words, "paper")]
    measured = Strip(column.title, tuple(entry_words(entry, column) for entry in entries), "measured")
    return [measured, Strip("paper", words, "paper")] if published else [measured]


def entry_words(entry: Entry, column: Column) -> str:
    """`87.4 ± 0.6`, `87.4 (n=1)` where more seeds were planned, or why there is no number."""
    if entry.mean is None:
        return NOTHING if entry.status == "not planned" else entry.status
    words = f"{entry.mean:.{column.digits}f}"
    if entry.sd is not None:
        words += f" ± {entry.sd:.{column.digits}f}"
    partial = entry.n < entry.planned and column.key not in COUNTED
    return f"{words} (n={entry.n})" if partial else words


def runs_words(row: Row) -> str:
    """`3/3`, or `1/3: 1 failed, 1 missing`: finished of planned runs, and what became of the others."""
    words = f"{row.states[State.FINISHED]}/{len(row.runs)}"
    if row.same_as is not None:
        words += " shared"
    rest = [f"{row.states[state]} {state}" for state in State if state is not State.FINISHED]
    others = ", ".join(part for part in rest if not part.startswith("0 "))
    return f"{words}: {others}" if others else words


def long_grid(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> list[Strip]:
    """The main columns of the long table: which run, and what came out. All of them are in the CSV."""
    found = long_columns(rows, labels)
    metrics = [key for key in found if key in _HEADLINES]
    settings = [] if labels else _telling_settings(rows)
    shown = ["run", *labels, *settings, "task", "seed", "state", *metrics, "params", "gmacs", "train_seconds"]
    return [_long_strip(key, rows, is_label=key in labels) for key in shown]


def _telling_settings(rows: Sequence[LongRow]) -> list[str]:
    """The backbone, and what else differs between the runs that say it, its options first."""
    known = [row for row in rows if row["state"] == State.FINISHED]
    keys = dict.fromkeys(key for row in known for key in row if key.startswith("model."))
    differing = [key for key in keys if len({repr(row.get(key)) for row in known}) > 1]
    backbone = [key for key in keys if key == "model.backbone"]
    options = [key for key in differing if key.startswith(_OPTION)]
    return list(dict.fromkeys(backbone + options + differing))[:_MOST_SETTINGS]


def _long_strip(key: str, rows: Iterable[LongRow], *, is_label: bool) -> Strip:
    column = None if is_label else COLUMNS.get(key)
    heading = column.title if column else key.removeprefix(_OPTION).removeprefix("model.").replace("_", " ")
    cells = tuple(_long_words(row.get(key), column) for row in rows)
    return Strip(heading, cells, "measured" if column else "state" if key == "state" else "label")


def _long_words(value: Any, column: Column | None) -> str:
    if value is None:
        return NOTHING
    return f"{value * column.scale:.{column.digits}f}" if column else str(value)
