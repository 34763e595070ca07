"""Scatter plot of a metric against GMACs, measured and published."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from focal_lab.report.plots.labels import Box, boxes_around, label_points
from focal_lab.report.plots.measured import (
    Network,
    has,
    interval,
    interval_words,
    limits,
    main_columns,
    networks,
    paper_words,
    references,
    same_scale,
)
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import PAPER, heading, new_figure, tidy, words
from focal_lab.report.table.model import Table
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More labels than these do not fit; a search has its own plot.
_MAX_POINTS = 30
# GMACs below which an axis counts millions.
_SMALL = 0.1
Points = dict[str, tuple[Network, float, float]]


def tradeoff_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none without GMACs, and none for a search."""
    if table.order is not None or all(column.key != "gmacs" for column in table.columns):
        return []
    return [plot for column in main_columns(table) if (plot := _plot(table, column)) is not None]


def _plot(table: Table, column: Column) -> Plot | None:
    measured, published = {}, {}
    for network in [*networks(table), *references(table)]:
        gmacs, metric = network.row.entries["gmacs"], network.row.entries[column.key]
        if has(gmacs) and has(metric):
            measured[network.name] = (network, gmacs.mean or 0.0, metric.mean or 0.0)
        if gmacs.published is not None and metric.published is not None:
            published[network.name] = (network, gmacs.published, metric.published)
    if not 2 <= len(measured) <= _MAX_POINTS:
        return None
    caption = interval_words([network.row.entries[column.key] for network, _, _ in measured.values()])
    left_out = len(published) - _MAX_POINTS
    if published:
        caption += f" Hollow: {paper_words(table)}"
        caption += "." if same_scale(table) else "; other data and another scale, so on axes of their own."
    caption += f" {left_out} more published rows are left out." if left_out > 0 else ""
    shown = dict(list(published.items())[:_MAX_POINTS])
    title = f"{heading(column.title)} against multiply-accumulates"
    return Plot(f"tradeoff-{column.key}", title, caption, lambda: _draw(table, column, measured, shown))


def _draw(table: Table, column: Column, measured: Points, published: Points) -> "Figure":
    apart = bool(published) and not same_scale(table)
    heights = [3.0 + 0.09 * max(0, len(measured) - 6), 2.6 + 0.07 * max(0, len(published) - 6)][: 1 + apart]
    figure = new_figure(sum(heights))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    other = "" if column.task == table.costs_task else f", {table.costs_task} network"
    for axes, where in zip(panels, (other, ""), strict=False):
        axes.set_ylabel(heading(column.title))
        axes.set_xlabel(f"GMACs (10⁹ multiply-accumulates per image{where})")
        tidy(axes)
    for network, x, y in measured.values():
        error, style = interval(network.row.entries[column.key]), network.style
        marks: Any = {"color": style.color, "marker": style.marker, "linestyle": "none"}
        panels[0].errorbar(x, y, yerr=error, elinewidth=1.2, **marks)
    for network, x, y in published.values():
        marks = {"color": network.style.color, "marker": network.style.marker, "linestyle": "none"}
        panels[-1].plot(x, y, markersize=7, markerfacecolor=PAPER, **marks)
    if apart:
        panels[0].set_title(f"measured (suite {words(table.suite)})")
        panels[1].set_title(f"published ({table.cite})")
        panels[1].margins(0.16, 0.16)
    if apart or not published:
        panels[0].margins(x=0.16)
        panels[0].set_ylim(
            *limits([network.row.entries[column.key] for network, _, _ in measured.values()], 0.12)
        )
        if max(x for _, x, _ in measured.values()) < _SMALL:
            _in_millions(panels[0])
    else:
        panels[0].margins(0.12, 0.12)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # a network that is measured and published is named once
    hollow = {name: point for name, point in published.items() if apart or name not in measured}
    if apart:
        _label(panels[1], hollow, ())
    named = measured if apart else measured | hollow
    bare = [(x, y) for name, (_, x, y) in published.items() if name not in hollow]
    taken = [*_error_bars(panels[0], column, measured.values()), *boxes_around(panels[0], bare, 7)]
    _label(panels[0], named, taken)
    return figure


def _in_millions(axes: "Axes") -> None:
    """For small images: 8.7 million are easier to read than 0.0087 billion."""
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value * 1000:g}"))
    axes.set_xlabel(axes.get_xlabel().replace("GMACs (10⁹", "MMACs (10⁶"))


def _label(axes: "Axes", points: Points, taken: Sequence[Box]) -> None:
    label_points(axes, [(x, y) for _, x, y in points.values()], [words(name) for name in points], taken)


def _error_bars(axes: "Axes", column: Column, points: Iterable[tuple[Network, float, float]]) -> list[Box]:
    boxes: list[Box] = []
    for network, x, y in points:
        error = interval(network.row.entries[column.key]) or 0.0
        low, high = boxes_around(axes, [(x, y - error), (x, y + error)], 4)
        boxes.append((low[0], low[1], high[2], high[3]))
    return boxes
