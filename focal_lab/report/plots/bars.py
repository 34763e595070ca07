"""Bars of every row's metric beside the published number, as in the paper's figure 5."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import (
    interval,
    interval_words,
    limits,
    main_columns,
    own_rows,
    paper_words,
    row_styles,
    same_scale,
)
from focal_lab.report.plots.style import (
    INK,
    MUTED,
    PAPER,
    Plot,
    heading,
    name_rows,
    new_figure,
    note,
    tidy,
    words,
)
from focal_lab.report.table.records import Entry, Row, Table, entry_words, shown_name
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_ROWS = 40
_HEIGHT = 0.3


def bar_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric."""
    if not 2 <= len(own_rows(table)) <= _MAX_ROWS:
        return []
    return [_plot(table, column) for column in main_columns(table)]


def _plot(table: Table, column: Column) -> Plot:
    rows = own_rows(table)
    entries = [row.entries[column.key] for row in rows]
    caption = f"{interval_words(entries)} Axes do not start at zero; the numbers are shown beside the bars."
    if any(entry.published is not None for entry in entries):
        scale = ": other data and another scale, so compare differences, not heights."
        caption += f" Right: {paper_words(table)}{'.' if same_scale(table) else scale}"
    title = f"{heading(column.title)} of every cell"
    return Plot(f"bars-{column.key}", title, caption, partial(_draw, table, column, rows))


def _draw(table: Table, column: Column, rows: Sequence[Row], title: str) -> "Figure":
    entries = [row.entries[column.key] for row in rows]
    published = [entry.published for entry in entries]
    numbers = [number for number in published if number is not None]
    figure = new_figure(0.95 + _HEIGHT * len(entries), title)
    panels = 1 + bool(numbers)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=[1.25, 1][:panels])[0]
    low, high = limits(entries)
    if numbers and same_scale(table):
        low, high = min(low, *numbers), max(high, *numbers)
    styles = zip(table.rows, row_styles(table), strict=True)
    colors = [style.color for row, style in styles if not row.reference]
    _bars(axes[0], [entry.mean for entry in entries], low, high, colors, filled=True)
    for place, entry in enumerate(entries):
        _annotate(axes[0], place, entry, column, low)
    axes[0].set_title(f"measured (suite {words(table.suite, 16)})")
    name_rows(axes[0], [shown_name(row) for row in rows])
    if numbers:
        if not same_scale(table):
            room = (max(numbers) - min(numbers)) * 0.35 or 1.0
            low, high = min(numbers) - room, max(numbers)
        _bars(axes[1], published, low, high, colors, filled=False)
        for place, number in enumerate(published):
            text = "not in the paper" if number is None else f"{number:g}"
            note(axes[1], text, low if number is None else number, place)
        axes[1].set_title(f"published ({table.cite})")
        axes[1].spines["left"].set_visible(False)
    for panel in axes:
        panel.set_xlabel(heading(column.title))
    return figure


def _bars(
    axes: "Axes",
    values: Sequence[float | None],
    low: float,
    high: float,
    colors: Sequence[str],
    *,
    filled: bool,
) -> None:
    for place, (value, color) in enumerate(zip(values, colors, strict=True)):
        if value is not None:
            face = color if filled else PAPER
            axes.barh(place, value - low, left=low, height=0.62, color=face, edgecolor=color, linewidth=1.2)
    tidy(axes, "x")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlim(low, low + (high - low) * 1.45)


def _annotate(axes: "Axes", place: int, entry: Entry, column: Column, low: float) -> None:
    """The number to the right of the bar and its interval, or why there is none."""
    if entry.mean is None:
        note(axes, entry_words(entry, column), low, place, color=MUTED, style="italic")
        return
    half_width = interval(entry)
    if half_width is not None:
        axes.errorbar(entry.mean, place, xerr=half_width, color=INK, elinewidth=1.1, linestyle="none")
    note(axes, entry_words(entry, column), entry.mean + (half_width or 0.0), place)
