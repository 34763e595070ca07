"""Tables of the page: the same words as everywhere, and beside each the number that sorts it."""

from collections.abc import Sequence
from dataclasses import dataclass

from focal_lab.report.formats.grid import METRIC, WORDS, Strip, table_grid, table_sections
from focal_lab.report.plots.style import heading
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import Column

Value = float | None
# What a word looks like; it stays a word, so that nothing depends on colours or pictures.
_TONES = {
    "better": "good",
    "supported": "good",
    "finished": "good",
    "worse": "bad",
    "contradicted": "bad",
    "failed": "bad",
    "corrupt": "bad",
    "missing": "warn",
    "pruned": "warn",
    "not reported": "warn",
    "too few seeds": "warn",
    "undecided": "warn",
    "within noise": "even",
    "same runs": "even",
    "other data": "even",
    "other test set": "warn",
}
_SIGNS = {"good": "▲", "bad": "✕", "warn": "○", "even": "≈"}
_BETTER_SIGNS = {"worse": "▼", "finished": "✓", "supported": "✓"}


@dataclass(frozen=True)
class HtmlCell:
    """One cell: its words, the number behind them, and how it is marked.

    Attributes:
        text: what everybody reads.
        value: sorts the column, in full; None comes last.
        tone: good, bad, warn, even, or empty.
        sign: stands before the words; empty for most.
    """

    text: str
    value: Value = None
    tone: str = ""
    sign: str = ""


@dataclass(frozen=True)
class HtmlHeading:
    """A column: its heading, its kind (label, measured, paper, state, verdict), whether numbers sort it."""

    text: str
    kind: str
    numeric: bool


@dataclass(frozen=True)
class HtmlTable:
    """A table that can be sorted; `name` is unique on the page."""

    name: str
    caption: str
    headings: tuple[HtmlHeading, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]


def main_table(table: Table) -> HtmlTable:
    """The sweep's table."""
    strips = table_grid(table)
    return _grid("table", "Measured and published", strips, _main_values(table, strips))


def section_tables(table: Table) -> list[HtmlTable]:
    """Rows against their baselines, and the parts of the claim; only what there is."""
    grids = []
    for section in table_sections(table):
        names = [strip.heading for strip in section.strips]
        claim = names[0] == "comparison" and "margin" in names
        values = _claim_values(table, section.strips) if claim else _comparison_values(table, section.strips)
        grids.append(_grid("claim" if claim else "baseline", section.heading, section.strips, values))
    return grids


def word_cell(text: str, value: Value = None) -> HtmlCell:
    """A cell that is marked by the gravest word in it."""
    for word in ("failed", "corrupt", "missing", "pruned"):
        if word in text:
            return HtmlCell(text, value, _TONES[word], _SIGNS[_TONES[word]])
    tone = _TONES.get(text, "")
    return HtmlCell(text, value, tone, _BETTER_SIGNS.get(text, _SIGNS.get(tone, "")))


def _grid(name: str, caption: str, strips: Sequence[Strip], values: Sequence[Sequence[Value]]) -> HtmlTable:
    headings, columns = [], []
    for strip, numbers in zip(strips, values, strict=True):
        if strip.kind == "label":
            numbers = _label_values(strip.cells)
        numeric = any(number is not None for number in numbers)
        headings.append(HtmlHeading(heading(strip.heading), strip.kind, numeric))
        marked = strip.kind != "label"
        columns.append(
            [
                word_cell(text, number) if marked else HtmlCell(text, number)
                for text, number in zip(_texts(strip), numbers, strict=True)
            ]
        )
    return HtmlTable(name, caption, tuple(headings), tuple(zip(*columns, strict=True)))


def _texts(strip: Strip) -> Sequence[str]:
    """A strip's cells; names of metrics as in headings."""
    return [heading(cell) for cell in strip.cells] if strip.heading == METRIC else strip.cells


def _label_values(cells: Sequence[str]) -> list[Value]:
    """Numbers if all labels are."""
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return [None] * len(cells)


def _main_values(table: Table, strips: Sequence[Strip]) -> list[list[Value]]:
    titles = {column.title: column for column in table.columns}
    column: Column | None = None
    values: list[list[Value]] = []
    for strip in strips:
        if strip.kind in WORDS:
            finished = [float(row.states.get(State.FINISHED, 0)) for row in table.rows]
            values.append([*finished] if strip.kind == "state" else [None] * len(table.rows))
            continue
        column = titles.get(strip.heading.removesuffix(" paper"), column)
        assert column is not None
        entries = [row.entries[column.key] for row in table.rows]
        if strip.kind == "measured":
            values.append([entry.mean for entry in entries])
        elif strip.heading == "diff":
            values.append([entry.difference for entry in entries])
        else:
            values.append([entry.published for entry in entries])
    return values


def _comparison_values(table: Table, strips: Sequence[Strip]) -> list[list[Value]]:
    found = [
        comparison
        for column in table.columns
        for row in table.rows
        if (comparison := row.entries[column.key].compared) is not None
    ]
    numbers: dict[str, list[Value]] = {
        "difference": [one.difference for one in found],
        "paper": [one.published for one in found],
        "n": [float(one.n) for one in found],
        "p": [one.p_holm for one in found],
    }
    return [_known(numbers, strip, len(found)) for strip in strips]


def _claim_values(table: Table, strips: Sequence[Strip]) -> list[list[Value]]:
    numbers: dict[str, list[Value]] = {
        "margin": [one.difference for one in table.answers],
        "paper": [one.published for one in table.answers],
        "n": [float(one.n) for one in table.answers],
        "probability": [one.probability for one in table.answers],
    }
    return [_known(numbers, strip, len(table.answers)) for strip in strips]


def _known(numbers: dict[str, list[Value]], strip: Strip, count: int) -> list[Value]:
    words: list[Value] = [None] * count
    return words if strip.kind in WORDS else numbers.get(strip.heading, words)
