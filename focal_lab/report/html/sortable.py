"""The sortable tables of a page: the cells of the report, each with the number that it is sorted by."""

from collections.abc import Sequence
from dataclasses import dataclass

from focal_lab.report.formats.grid import METRIC, Strip, table_grid, table_sections
from focal_lab.report.plots.style import heading
from focal_lab.report.table.records import Table

_TONES = {
    "good": ("better", "supported", "finished"),
    "bad": ("worse", "contradicted", "failed", "corrupt"),
    "warn": ("missing", "pruned", "not reported", "too few seeds", "undecided", "other test set"),
    "even": ("within noise", "same runs", "other data"),
}
_TONE_OF = {word: tone for tone, words in _TONES.items() for word in words}
# Signs stand beside words, so that nothing depends on colours.
_SIGNS = {"good": "▲", "bad": "✕", "warn": "○", "even": "≈", "worse": "▼", "finished": "✓", "supported": "✓"}
_SEVERE = ("failed", "corrupt", "missing", "pruned")


@dataclass(frozen=True)
class HtmlCell:
    """One cell: `value` sorts the column (None comes last), `tone` is good, bad, warn, even or empty."""

    text: str
    value: float | None = None
    tone: str = ""
    sign: str = ""


@dataclass(frozen=True)
class HtmlHeading:
    """A heading, the kind of its column (label, measured, paper, state, verdict), and what sorts it."""

    text: str
    kind: str
    numeric: bool


@dataclass(frozen=True)
class HtmlTable:
    """A sortable table; `name` is unique on the page."""

    name: str
    caption: str
    headings: tuple[HtmlHeading, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]


def main_table(table: Table) -> HtmlTable:
    """The sweep's table."""
    return _html_table("table", "Measured and published", table_grid(table))


def section_tables(table: Table) -> list[HtmlTable]:
    """Rows against their baselines, and the parts of the claim, if there are any."""
    return [_html_table(part.name, part.heading, part.strips) for part in table_sections(table)]


def word_cell(text: str, value: float | None = None) -> HtmlCell:
    """A cell with the tone of its text, or of the most severe word in it."""
    key = next((word for word in _SEVERE if word in text), text)
    tone = _TONE_OF.get(key, "")
    return HtmlCell(text, value, tone, _SIGNS.get(key, _SIGNS.get(tone, "")))


def _html_table(name: str, caption: str, strips: Sequence[Strip]) -> HtmlTable:
    headings, columns = [], []
    for strip in strips:
        numbers: Sequence[float | None] = strip.numbers or [None] * len(strip.cells)
        if strip.kind == "label":
            numbers = _label_values(strip.cells)
        numeric = any(number is not None for number in numbers)
        headings.append(HtmlHeading(heading(strip.heading), strip.kind, numeric))
        texts = map(heading, strip.cells) if strip.heading == METRIC else strip.cells
        make = HtmlCell if strip.kind == "label" else word_cell
        columns.append([make(text, number) for text, number in zip(texts, numbers, strict=True)])
    return HtmlTable(name, caption, tuple(headings), tuple(zip(*columns, strict=True)))


def _label_values(cells: Sequence[str]) -> Sequence[float | None]:
    """Numbers if all labels are."""
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return [None] * len(cells)
