"""What a network is worth for what it costs: a metric against GMACs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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

    from focal_lab.report.plots.labels import Box

# More labels than these would need a poster; a search has its own plot.
_MOST = 30
# GMACs below which an axis counts millions.
_FEW = 0.1


def tradeoff_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none without GMACs, and none for a search."""
    if table.order is not None or all(column.key != "gmacs" for column in table.columns):
        return []
    return [plot for column in main_columns(table) if (plot := _plot(table, column)) is not None]


def _plot(table: Table, column: Column) -> Plot | None:
    shown = [
        network
        for network in networks(table)
        if has(network.row.entries[column.key]) and has(network.row.entries["gmacs"])
    ]
    if not 2 <= len(shown) <= _MOST:
        return None
    published = [network for network in [*networks(table), *references(table)] if _published(network, column)]
    left_out = len(published[_MOST:])
    published = published[:_MOST]
    caption = interval_words([network.row.entries[column.key] for network in shown])
    if published:
        caption += f" Hollow: {paper_words(table)}"
        caption += "." if same_scale(table) else "; other data and another scale, so on axes of their own."
    caption += f" {left_out} more published rows are left out." if left_out else ""
    return Plot(
        name=f"tradeoff-{column.key}",
        title=f"{heading(column.title)} against multiply-accumulates",
        caption=caption,
        drawing=lambda: _draw(table, column, shown, published),
    )


def _published(network: Network, column: Column) -> tuple[float, float] | None:
    x, y = network.row.entries["gmacs"].published, network.row.entries[column.key].published
    return None if x is None or y is None else (x, y)


def _draw(table: Table, column: Column, shown: Sequence[Network], published: Sequence[Network]) -> "Figure":
    crowd = 0.09 * max(0, len(shown) - 6)
    apart = bool(published) and not same_scale(table)
    heights = [3.0 + crowd, 2.6 + 0.07 * max(0, len(published) - 6)][: 1 + apart]
    figure = new_figure(sum(heights))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    measured: Axes = panels[0, 0]
    _measure(measured, table, column, shown)
    if apart:
        measured.set_title(f"measured (suite {words(table.suite)})")
        below: Axes = panels[1, 0]
        below.set_title(f"published ({table.cite})")
        _publish(below, column, published)
        below.margins(0.16, 0.16)
    elif published:
        _publish(measured, column, published)
        measured.autoscale()
        measured.margins(0.12, 0.12)
    if max(_point(network, column)[0] for network in shown) < _FEW and (apart or not published):
        _in_millions(measured)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    points = [_point(network, column) for network in shown]
    names = [words(network.name) for network in shown]
    hollow = [point for network in published if (point := _published(network, column))]
    titles = [words(network.name) for network in published]
    if apart:
        _label(measured, points, names, _bars(measured, column, shown))
        _label(panels[1, 0], hollow, titles)
        return figure
    # measured networks are named once
    others = [(point, name) for point, name in zip(hollow, titles, strict=True) if name not in names]
    unnamed = [point for point, name in zip(hollow, titles, strict=True) if name in names]
    taken = [*_bars(measured, column, shown), *_marks(measured, unnamed)]
    _label(measured, points + [point for point, _ in others], names + [name for _, name in others], taken)
    return figure


def _point(network: Network, column: Column) -> tuple[float, float]:
    x, y = network.row.entries["gmacs"].mean, network.row.entries[column.key].mean
    assert x is not None
    assert y is not None
    return x, y


def _measure(axes: "Axes", table: Table, column: Column, shown: Sequence[Network]) -> None:
    for network in shown:
        style = network.look
        x, y = _point(network, column)
        error = interval(network.row.entries[column.key])
        axes.errorbar(
            x,
            y,
            yerr=error,
            color=style.color,
            marker=style.marker,
            capsize=3,
            elinewidth=1.2,
            linestyle="none",
        )
    axes.set_ylim(*limits([network.row.entries[column.key] for network in shown], 0.12))
    axes.margins(x=0.16)
    axes.set_ylabel(heading(column.title))
    other = "" if column.task == table.costs_task else f", {table.costs_task} network"
    axes.set_xlabel(f"GMACs (10⁹ multiply-accumulates per picture{other})")
    tidy(axes)


def _in_millions(axes: "Axes") -> None:
    """Networks for small pictures: 8.7 million are easier to read than 0.0087 billion."""
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value * 1000:g}"))
    axes.set_xlabel(axes.get_xlabel().replace("GMACs (10⁹", "MMACs (10⁶"))


def _publish(axes: "Axes", column: Column, published: Sequence[Network]) -> None:
    for network in published:
        style = network.look
        point = _published(network, column)
        assert point is not None
        axes.plot(
            *point,
            color=style.color,
            marker=style.marker,
            linestyle="none",
            markerfacecolor=PAPER,
            markersize=7,
        )
    axes.set_ylabel(heading(column.title))
    axes.set_xlabel("GMACs (10⁹ multiply-accumulates per picture)")
    tidy(axes)


def _label(
    axes: "Axes", points: Sequence[tuple[float, float]], names: Sequence[str], taken: "Sequence[Box]" = ()
) -> None:
    from focal_lab.report.plots.labels import label_points

    label_points(axes, points, names, taken)


def _bars(axes: "Axes", column: Column, shown: Sequence[Network]) -> "list[Box]":
    """The error bars as boxes in pixels."""
    boxes: list[Box] = []
    for network in shown:
        (x, y), error = _point(network, column), interval(network.row.entries[column.key]) or 0.0
        left, low = axes.transData.transform((x, y - error))
        _, high = axes.transData.transform((x, y + error))
        boxes.append((left - 5, low - 4, left + 5, high + 4))
    return boxes


def _marks(axes: "Axes", points: Sequence[tuple[float, float]]) -> "list[Box]":
    """Marks without a label as boxes in pixels."""
    pixels = [axes.transData.transform(point) for point in points]
    return [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels]
