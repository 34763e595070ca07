"""Tables of the page: the same words as everywhere, and beside each the number that sorts it."""

from collections.abc import Sequence
from dataclasses import dataclass

from focal_lab.report.formats.grid import METRIC, Strip, table_grid, table_sections
from focal_lab.report.plots.style import heading
from focal_lab.report.table.model import Table

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
    return _grid("table", "Measured and published", table_grid(table))


def section_tables(table: Table) -> list[HtmlTable]:
    """Rows against their baselines, and the parts of the claim."""
    return [_grid(section.name, section.heading, section.strips) for section in table_sections(table)]


def word_cell(text: str, value: Value = None) -> HtmlCell:
    """A cell that is marked by the gravest word in it."""
    for word in ("failed", "corrupt", "missing", "pruned"):
        if word in text:
            return HtmlCell(text, value, _TONES[word], _SIGNS[_TONES[word]])
    tone = _TONES.get(text, "")
    return HtmlCell(text, value, tone, _BETTER_SIGNS.get(text, _SIGNS.get(tone, "")))


def _grid(name: str, caption: str, strips: Sequence[Strip]) -> HtmlTable:
    headings, columns = [], []
    for strip in strips:
        numbers: Sequence[Value] = strip.numbers or [None] * len(strip.cells)
        if strip.kind == "label":
            numbers = _label_values(strip.cells)
        numeric = any(number is not None for number in numbers)
        headings.append(HtmlHeading(heading(strip.heading), strip.kind, numeric))
        cell = HtmlCell if strip.kind == "label" else word_cell
        columns.append([cell(*pair) for pair in zip(_texts(strip), numbers, strict=True)])
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
