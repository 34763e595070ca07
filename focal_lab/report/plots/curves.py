"""Learning curves: the validation metric and the training loss of every cell, with bands over its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import Network, networks
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import SMALL, WIDTH, Look, heading, new_figure, spread, tidy, words
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.training.history_file import Point, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Readers can follow no more lines than these.
_MOST = 24
# Points of a training that is shown from its beginning.
_SHORT = 8
_LOSS = "train/loss"


@dataclass(frozen=True)
class Curve:
    """A value against epochs, over the seeds of a cell.

    Attributes:
        middle: mean over the seeds.
        low, high: lowest and highest seed.
    """

    look: Look
    name: str
    epochs: tuple[float, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def curve_plots(table: Table, out: Path) -> list[Plot]:
    """A plot for each task whose runs left curves; none for a search, which has one run a row."""
    if table.order is not None:
        return []
    return [plot for task in table.tasks if (plot := _plot(table, out, task)) is not None]


def _plot(table: Table, out: Path, task: str) -> Plot | None:
    shown = networks(table)[:_MOST]
    histories = {network.index: _histories(network, out, task) for network in shown}
    wanted = ((f"val/{MAIN[task]}", _metric_title(task)), (_LOSS, "training loss"))
    found = [(title, _curves(shown, histories, key)) for key, title in wanted]
    panels = [(title, curves) for title, curves in found if any(len(curve.epochs) > 1 for curve in curves)]
    if not panels:
        return None
    left_out = len(networks(table)) - len(shown)
    seeds = max(len(runs) for runs in histories.values())
    caption = (
        "Lines: mean over seeds; bands: from the lowest to the highest seed."
        if seeds > 1
        else "One seed a cell."
    )
    if any(len(curve.epochs) >= _SHORT for _, curves in panels for curve in curves):
        caption += " The axes begin where the first quarter of the epochs ends."
    caption += f" The first {_MOST} cells; {left_out} more are left out." if left_out else ""
    which = f" ({task})" if len(table.tasks) > 1 else ""
    return Plot(
        name=f"curves-{task}",
        title=f"Learning curves{which}: {' and '.join(title for title, _ in panels)}",
        caption=caption,
        drawing=lambda: _draw(panels),
    )


def _metric_title(task: str) -> str:
    return f"validation {heading(COLUMNS[MAIN[task]].title)}"


def _histories(network: Network, out: Path, task: str) -> list[list[Point]]:
    """Curves of the cell's finished runs; of those that are still training if none has finished."""
    runs = [run for run in network.row.runs if run.task == task]
    finished = [run for run in runs if run.state is State.FINISHED]
    found = [read_history(out / run.run) for run in finished or runs]
    return [points for points in found if points]


def _curves(
    shown: Sequence[Network], histories: Mapping[int, Sequence[Sequence[Point]]], key: str
) -> list[Curve]:
    curves = []
    for network in shown:
        seeds = [
            {p.epoch: p.values[key] for p in points if key in p.values} for points in histories[network.index]
        ]
        seeds = [found for found in seeds if found]
        if not seeds:
            continue
        epochs = sorted(set.intersection(*(set(found) for found in seeds)))
        values = [[found[epoch] for found in seeds] for epoch in epochs]
        curves.append(
            Curve(
                network.look,
                network.name,
                tuple(epochs),
                tuple(fsum(column) / len(column) for column in values),
                tuple(min(column) for column in values),
                tuple(max(column) for column in values),
            )
        )
    return [curve for curve in curves if curve.epochs]


def _draw(panels: Sequence[tuple[str, Sequence[Curve]]]) -> "Figure":
    most = max(len(curves) for _, curves in panels)
    each = max(2.2, 0.5 + 0.155 * most)
    height = each * len(panels) + 0.35
    figure = new_figure(height, arranged=False)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    names = [words(curve.name, 26) for _, curves in panels for curve in curves]
    right = 1 - (_width(figure, names) / 72 + 0.24) / WIDTH
    figure.subplots_adjust(
        left=0.6 / WIDTH, right=right, bottom=0.5 / height, top=1 - 0.25 / height, hspace=0.24
    )
    for panel, (title, curves) in zip(axes, panels, strict=True):
        for curve in curves:
            style = curve.look
            marker = style.marker if len(curve.epochs) <= 15 else None
            panel.fill_between(
                curve.epochs, curve.low, curve.high, color=style.color, alpha=0.14, linewidth=0
            )
            panel.plot(
                curve.epochs,
                curve.middle,
                color=style.color,
                linestyle=style.dashes,
                marker=marker,
                markersize=4,
            )
        panel.set_title(title)
        panel.set_ylim(*_limits(curves))
        tidy(panel)
        _name_ends(panel, curves, each)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True, nbins=8)
    return figure


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Of a long training without its first quarter, beside which all else would look alike."""
    last = max(curve.epochs[-1] for curve in curves)
    ends = [
        value
        for curve in curves
        for epoch, *values in zip(curve.epochs, curve.low, curve.high, strict=True)
        if len(curve.epochs) < _SHORT or epoch > last / 4
        for value in values
    ] or [value for curve in curves for value in (*curve.low, *curve.high)]
    room = (max(ends) - min(ends)) * 0.06 or 1e-3
    return min(ends) - room, max(ends) + room


def _name_ends(axes: "Axes", curves: Sequence[Curve], inches: float) -> None:
    """Names at the right, as near to the ends of their lines as neighbours allow."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    start, end = axes.get_xlim()
    axes.set_xlim(start, end)
    ends = [(curve.middle[-1] - low) / (high - low) for curve in curves]
    gap = (SMALL + 1.5) / 72 / (inches * 0.8)
    for curve, wanted, place in zip(curves, ends, spread(ends, gap, 0.0, 1.0), strict=True):
        x = (curve.epochs[-1] - start) / (end - start)
        axes.annotate(
            words(curve.name, 26),
            (x, wanted),
            (1.035, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": curve.look.color, "linewidth": 0.7, "relpos": (0, 0.5)},
        )


def _width(figure: "Figure", names: Sequence[str]) -> float:
    """Of the longest name, in points."""
    widest = 0.0
    for name in dict.fromkeys(names):
        text = figure.text(0, 0, name, fontsize=SMALL)
        extent = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        widest = max(widest, extent.width * 72 / figure.dpi)
        text.remove()
    return widest
