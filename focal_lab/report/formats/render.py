"""The formats of a sweep's table and of the long table; each is a function from data to text."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from focal_lab.report.formats.grid import WORDS, Strip, long_grid, row_name, table_grid, table_sections
from focal_lab.report.formats.latex import long_latex, table_latex
from focal_lab.report.formats.terminal import heading_text, note_text, strips_text
from focal_lab.report.table.long_table import LongRow, long_columns
from focal_lab.report.table.model import Entry, Table
from focal_lab.report.table.notes import long_notes
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import Column

# Every character that can start something in Markdown, inside a table's cell or a list item; $ and ~ are
# GitHub's mathematics and strike-through.
_MARKDOWN = {ord(character): f"\\{character}" for character in "\\`*_[]<>|~$&"}
# A terminal shows the latest runs; nobody scrolls through thousands.
_MOST_LONG_ROWS = 200


def table_text(table: Table, width: int | None = None, *, color: bool = False) -> str:
    """For reading in a terminal.

    Args:
        table: what to show.
        width: columns of the terminal; None for as wide as it takes, as a pipe wants it.
        color: use ANSI escape codes.
    """
    head = heading_text(_title(table), table.claim and f"Claim: {table.claim}", width, color=color)
    text = head + strips_text(table_grid(table), width, color=color)
    for section in table_sections(table):
        text += "\n" + heading_text(section.heading, None, width, color=color)
        text += strips_text(section.strips, width, color=color)
    return text + note_text(table.notes, width)


def table_markdown(table: Table) -> str:
    """For a README or a pull request."""
    claim = f"Claim: {_markdown(table.claim)}\n\n" if table.claim else ""
    text = f"### {_markdown(_title(table))}\n\n{claim}{_markdown_strips(table_grid(table))}"
    for section in table_sections(table):
        text += f"\n{_markdown(section.heading)}\n\n{_markdown_strips(section.strips)}"
    notes = "".join(f"- {_markdown(note)}\n" for note in table.notes)
    return f"{text}\n{notes}"


def table_csv(table: Table) -> str:
    """For programs: a line a row, numbers in full; see `flat_rows`."""
    rows = flat_rows(table)
    return _csv([list(rows[0]), *(row.values() for row in rows)] if rows else [])


def flat_rows(table: Table) -> list[dict[str, Any]]:
    """A row as flat values with equal keys.

    Factors, then for each column `top1_mean, _sd, _ci95` (half of the interval)`, _n, _paper, _diff`
    (measured minus the paper's), for metrics `_baseline, _delta` (row minus baseline)`, _delta_ci95, _p,
    _p_holm, _verdict`, then counts of runs.
    """
    rows = []
    for row in table.rows:
        flat: dict[str, Any] = {factor: row.labels.get(factor) for factor in table.factors}
        for column in table.columns:
            flat |= _flat_entry(column, row.entries[column.key], table)
        counts = {str(state): row.states.get(state, 0) for state in State}
        rows.append(flat | {"data": row.data or None, "planned": len(row.runs)} | counts)
    return rows


def _flat_entry(column: Column, entry: Entry, table: Table) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "mean": entry.mean,
        "sd": entry.sd,
        "ci95": entry.half_width,
        "n": entry.n,
        "paper": entry.published,
        "diff": entry.difference,
    }
    if column.task is not None:
        compared = entry.compared
        flat |= {
            "baseline": row_name(table.rows[compared.baseline]) if compared else None,
            "delta": compared.difference if compared else None,
            "delta_ci95": compared.half_width if compared else None,
            "p": compared.p if compared else None,
            "p_holm": compared.p_holm if compared else None,
            "verdict": compared.verdict if compared else None,
        }
    return {f"{column.key}_{name}": value for name, value in flat.items()}


def table_json(table: Table) -> str:
    """Everything the table knows, down to each seed's value and each run's state."""
    return _json(asdict(table))


def long_text(
    rows: Sequence[LongRow], labels: Sequence[str] = (), width: int | None = None, *, color: bool = False
) -> str:
    """The main columns of the long table for a terminal, the latest runs if there are very many."""
    shown, notes = list(rows), []
    if len(shown) > _MOST_LONG_ROWS:
        latest = sorted(rows, key=lambda row: str(row.get("finished") or ""))[-_MOST_LONG_ROWS:]
        chosen = {id(row) for row in latest}
        shown = [row for row in rows if id(row) in chosen]
        notes.append(f"The latest {len(shown)} of {len(rows)} runs; all of them: --format csv.")
    notes += long_notes(shown)
    return strips_text(long_grid(shown, labels), width, color=color) + note_text(notes, width)


def long_markdown(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> str:
    """The main columns of the long table, all rows."""
    notes = "".join(f"- {_markdown(note)}\n" for note in long_notes(rows))
    return _markdown_strips(long_grid(rows, labels)) + (f"\n{notes}" if notes else "")


def long_csv(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> str:
    """Everything that is known about each run, one line a run; unknown is empty."""
    columns = long_columns(rows, labels)
    return _csv([columns, *([row.get(key) for key in columns] for row in rows)])


def long_json(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> str:
    """A list of objects with equal keys; unknown is null."""
    columns = long_columns(rows, labels)
    return _json([{key: row.get(key) for key in columns} for row in rows])


TABLE_FORMATS: dict[str, Callable[[Table], str]] = {
    "text": table_text,
    "markdown": table_markdown,
    "latex": table_latex,
    "csv": table_csv,
    "json": table_json,
}
LONG_FORMATS: dict[str, Callable[[Sequence[LongRow], Sequence[str]], str]] = {
    "text": long_text,
    "markdown": long_markdown,
    "latex": long_latex,
    "csv": long_csv,
    "json": long_json,
}


def _title(table: Table) -> str:
    return f"{table.title} (the paper's {table.cite})" if table.cite else table.title


def _markdown(text: str) -> str:
    return " ".join(text.split()).translate(_MARKDOWN)


def _markdown_strips(strips: Sequence[Strip]) -> str:
    rules = ["---" if strip.kind in WORDS else "---:" for strip in strips]
    rows = zip(*([_markdown(cell) for cell in strip.cells] for strip in strips), strict=True)
    lines = [[_markdown(strip.heading) for strip in strips], rules, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def _json(value: Any) -> str:
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
