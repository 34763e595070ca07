"""Scatter plot of a metric against GMACs, measured and published."""

from functools import partial
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import (
    interval,
    interval_words,
    main_columns,
    networks,
    paper_words,
    references,
    same_scale,
)
from focal_lab.report.plots.scatter import Mark, draw_marks, label_marks
from focal_lab.report.plots.style import Plot, heading, new_figure, tidy, words
from focal_lab.report.table.records import Entry, Table, row_name
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More labels than these do not fit.
_MAX_MARKS = 30


def tradeoff_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none without GMACs."""
    if all(column.key != "gmacs" for column in table.columns):
        return []
    return [plot for column in main_columns(table) if (plot := _plot(table, column)) is not None]


def _plot(table: Table, column: Column) -> Plot | None:
    measured: list[Mark] = []
    published: list[Mark] = []
    entries: list[Entry] = []
    for network in [*networks(table), *references(table)]:
        gmacs, metric = network.row.entries["gmacs"], network.row.entries[column.key]
        name, style = network.name, network.style
        if gmacs.mean is not None and metric.mean is not None:
            measured.append(Mark(name, gmacs.mean, metric.mean, style, error=interval(metric)))
            entries.append(metric)
        if gmacs.published is not None and metric.published is not None:
            # a network that stands for the paper's has another name than that
            theirs = row_name(network.row) if network.row.variant else name
            published.append(Mark(theirs, gmacs.published, metric.published, style, filled=False))
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
    return Plot(f"tradeoff-{column.key}", title, caption, partial(_draw, table, column, measured, shown))


def _draw(table: Table, column: Column, measured: list[Mark], published: list[Mark], title: str) -> "Figure":
    apart = bool(published) and not same_scale(table)
    heights = [3.0 + 0.09 * max(0, len(measured) - 6), 2.6 + 0.07 * max(0, len(published) - 6)][: 1 + apart]
    figure = new_figure(sum(heights), title)
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
