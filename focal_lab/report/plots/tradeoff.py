"""Scatter plot of a metric against GMACs, measured and published."""

from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import (
    has,
    interval,
    interval_words,
    main_columns,
    networks,
    paper_words,
    references,
    same_scale,
)
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.scatter import Mark, draw_marks, label_marks
from focal_lab.report.plots.style import heading, new_figure, tidy, words
from focal_lab.report.table.records import Entry, Table
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More labels than these do not fit; a search has its own plot.
_MAX_MARKS = 30
# GMACs below which an axis counts millions.
_SMALL = 0.1


def tradeoff_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none without GMACs, and none for a search."""
    if table.order is not None or all(column.key != "gmacs" for column in table.columns):
        return []
    return [plot for column in main_columns(table) if (plot := _plot(table, column)) is not None]


def _plot(table: Table, column: Column) -> Plot | None:
    measured: list[Mark] = []
    published: list[Mark] = []
    entries: list[Entry] = []
    for network in [*networks(table), *references(table)]:
        gmacs, metric = network.row.entries["gmacs"], network.row.entries[column.key]
        name, style = network.name, network.style
        if has(gmacs) and has(metric):
            measured.append(Mark(name, gmacs.mean or 0.0, metric.mean or 0.0, style, error=interval(metric)))
            entries.append(metric)
        if gmacs.published is not None and metric.published is not None:
            published.append(Mark(name, gmacs.published, metric.published, style, filled=False))
    if not 2 <= len(measured) <= _MAX_MARKS:
        return None
    caption = interval_words(entries)
    if published:
        caption += f" Hollow: {paper_words(table)}"
        caption += "." if same_scale(table) else "; other data and another scale, so on axes of their own."
    if len(published) > _MAX_MARKS:
        caption += f" {len(published) - _MAX_MARKS} more published rows are left out."
    title = f"{heading(column.title)} against multiply-accumulates"
    shown = published[:_MAX_MARKS]
    return Plot(f"tradeoff-{column.key}", title, caption, lambda: _draw(table, column, measured, shown))


def _draw(table: Table, column: Column, measured: list[Mark], published: list[Mark]) -> "Figure":
    apart = bool(published) and not same_scale(table)
    heights = [3.0 + 0.09 * max(0, len(measured) - 6), 2.6 + 0.07 * max(0, len(published) - 6)][: 1 + apart]
    figure = new_figure(sum(heights))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    other = "" if column.task == table.costs_task else f", {table.costs_task} network"
    for axes, where in zip(panels, (other, ""), strict=False):
        axes.set_ylabel(heading(column.title))
        axes.set_xlabel(f"GMACs (10⁹ multiply-accumulates per image{where})")
        axes.margins(0.16)
        tidy(axes)
    draw_marks(panels[0], measured)
    draw_marks(panels[-1], published)
    if apart:
        panels[0].set_title(f"measured (suite {words(table.suite)})")
        panels[1].set_title(f"published ({table.cite})")
    if (apart or not published) and max(mark.x for mark in measured) < _SMALL:
        _in_millions(panels[0])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    if apart:
        label_marks(panels[0], measured, measured)
        label_marks(panels[1], published, published)
    else:  # a network that is measured and published is named once
        names = {mark.name for mark in measured}
        hollow = [mark for mark in published if mark.name not in names]
        label_marks(panels[0], measured + published, measured + hollow)
    return figure


def _in_millions(axes: "Axes") -> None:
    """For small images: 8.7 million are easier to read than 0.0087 billion."""
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value * 1000:g}"))
    axes.set_xlabel(axes.get_xlabel().replace("GMACs (10⁹", "MMACs (10⁶"))
