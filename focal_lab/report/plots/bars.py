"""Every row's number beside the paper's, as in the paper's figure 5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from focal_lab.report.formats.grid import entry_words, row_name
from focal_lab.report.plots.measured import (
    has,
    interval,
    interval_words,
    limits,
    looks,
    main_columns,
    own_rows,
    paper_words,
    same_scale,
)
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import INK, MUTED, PAPER, SMALL, heading, new_figure, tidy, words
from focal_lab.report.table.model import Entry, Row, Table
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 40
_HEIGHT = 0.3


def bar_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none for a search, whose rows have no order of their own."""
    if table.order is not None or not 2 <= len(own_rows(table)) <= _MOST:
        return []
    return [_plot(table, column) for column in main_columns(table)]


def _plot(table: Table, column: Column) -> Plot:
    rows = own_rows(table)
    entries = [row.entries[column.key] for row in rows]
    caption = f"{interval_words(entries)} Axes do not begin at zero; the numbers stand at the bars."
    if any(entry.published is not None for entry in entries):
        scale = (
            "."
            if same_scale(table)
            else ": other data and another scale, so compare differences, not heights."
        )
        caption += f" Right: {paper_words(table)}{scale}"
    return Plot(
        name=f"bars-{column.key}",
        title=f"{heading(column.title)} of every cell",
        caption=caption,
        drawing=lambda: _draw(table, column, rows),
    )


def _draw(table: Table, column: Column, rows: Sequence[Row]) -> "Figure":
    entries = [row.entries[column.key] for row in rows]
    published = [entry.published for entry in entries]
    panels = 1 + any(number is not None for number in published)
    figure = new_figure(0.95 + _HEIGHT * len(entries))
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=[1.25, 1][:panels])[0]
    low, high = limits(entries)
    if panels == 2 and same_scale(table):
        numbers = [number for number in published if number is not None]
        low, high = min(low, *numbers), max(high, *numbers)
    pairs = zip(table.rows, looks(table), strict=True)
    colors = [style.color for row, style in pairs if not row.reference]
    _bars(axes[0], [entry.mean for entry in entries], low, colors, filled=True)
    for place, entry in enumerate(entries):
        _annotate(axes[0], place, entry, column, low)
    axes[0].set_xlim(low, low + (high - low) * 1.45)
    axes[0].set_title(f"measured (suite {words(table.suite, 16)})")
    axes[0].set_xlabel(heading(column.title))
    axes[0].set_yticks(range(len(entries)), [words(row_name(row), 26) for row in rows])
    axes[0].set_ylim(len(entries) - 0.45, -0.55)
    if panels == 2:
        numbers = [number for number in published if number is not None]
        if not same_scale(table):
            room = (max(numbers) - min(numbers)) * 0.35 or 1.0
            low, high = min(numbers) - room, max(numbers)
        _bars(axes[1], published, low, colors, filled=False)
        for place, number in enumerate(published):
            shown = low if number is None else number
            text = "not in the paper" if number is None else f"{number:g}"
            axes[1].annotate(
                text, (shown, place), (4, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
        axes[1].set_xlim(low, low + (high - low) * 1.45)
        axes[1].set_title(f"published ({table.cite})")
        axes[1].set_xlabel(heading(column.title))
    return figure


def _bars(
    axes: "Axes", values: Sequence[float | None], low: float, colors: Sequence[str], *, filled: bool
) -> None:
    for place, value in enumerate(values):
        if value is None:
            continue
        color = colors[place]
        axes.barh(
            place,
            value - low,
            left=low,
            height=0.62,
            color=color if filled else PAPER,
            edgecolor=color,
            linewidth=1.2,
        )
    tidy(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)


def _annotate(axes: "Axes", place: int, entry: Entry, column: Column, low: float) -> None:
    """The number behind the bar and its interval; or why there is none."""
    end = low
    if has(entry) and entry.mean is not None:
        end = entry.mean
        half_width = interval(entry)
        if half_width is not None:
            axes.errorbar(
                entry.mean,
                place,
                xerr=half_width,
                color=INK,
                capsize=3,
                elinewidth=1.1,
                linestyle="none",
            )
            end += half_width
    axes.annotate(
        entry_words(entry, column),
        (end, place),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=INK if has(entry) else MUTED,
        style="normal" if has(entry) else "italic",
    )
