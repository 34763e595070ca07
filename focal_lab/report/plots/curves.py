"""Learning curves: the validation metric and the training loss of every cell, with bands over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.plots.measured import Network, networks
from focal_lab.report.plots.style import Plot, SeriesStyle, heading, new_figure, tidy, words
from focal_lab.report.table.records import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.training.history_file import Point, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_CURVES = 24
# A training with this many epochs is shown without the first quarter, beside which the rest would look flat.
_LONG = 8


@dataclass(frozen=True)
class CellCurve:
    """A value over the epochs: mean, lowest and highest seed of a cell."""

    style: SeriesStyle
    name: str
    epochs: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def curve_plots(table: Table, out: Path) -> list[Plot]:
    """A plot for each task whose runs have curves."""
    return [plot for task in table.tasks if (plot := _plot(table, out, task)) is not None]


def _plot(table: Table, out: Path, task: str) -> Plot | None:
    shown = networks(table)[:_MAX_CURVES]
    histories = [_histories(network, out, task) for network in shown]
    keys = {
        f"validation {heading(COLUMNS[MAIN[task]].title)}": f"val/{MAIN[task]}",
        "training loss": "train/loss",
    }
    panels: dict[str, list[CellCurve]] = {}
    for title, key in keys.items():
        pairs = zip(shown, histories, strict=True)
        curves = [curve for network, seeds in pairs if (curve := _curve(network, seeds, key))]
        if any(len(curve.epochs) > 1 for curve in curves):
            panels[title] = curves
    if not panels:
        return None
    several = max(map(len, histories)) > 1
    caption = (
        "Lines: mean over seeds; bands: from the lowest to the highest seed."
        if several
        else "One seed per cell."
    )
    if any(len(curve.epochs) >= _LONG for curves in panels.values() for curve in curves):
        caption += " The axes start after the first quarter of the epochs."
    left_out = len(networks(table)) - len(shown)
    caption += f" The first {_MAX_CURVES} cells; {left_out} more are left out." if left_out else ""
    which = f" ({task})" if len(table.tasks) > 1 else ""
    title = f"Learning curves{which}: {' and '.join(panels)}"
    return Plot(f"curves-{task}", title, caption, partial(_draw, panels))


def _histories(network: Network, out: Path, task: str) -> list[list[Point]]:
    """Curves of the cell's finished runs; of those that are still training if none has finished."""
    runs = [run for run in network.row.runs if run.task == task]
    finished = [run for run in runs if run.state is State.FINISHED]
    return [points for run in finished or runs if (points := read_history(out / run.run))]


def _curve(network: Network, histories: Sequence[Sequence[Point]], key: str) -> CellCurve | None:
    seeds = [{p.epoch: p.values[key] for p in points if key in p.values} for points in histories]
    seeds = [found for found in seeds if found]
    epochs = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not epochs:
        return None
    values = [[found[epoch] for found in seeds] for epoch in epochs]
    means = [fsum(column) / len(column) for column in values]
    return CellCurve(
        network.style, network.name, epochs, means, list(map(min, values)), list(map(max, values))
    )


def _draw(panels: dict[str, list[CellCurve]], title: str) -> "Figure":
    most = max(map(len, panels.values()))
    figure = new_figure(max(2.2, 0.4 + 0.18 * most) * len(panels) + 0.35, title)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    lines: dict[str, Any] = {}
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in sorted(curves, key=lambda curve: -curve.mean[-1]):
            color, dashes = curve.style.color, curve.style.dashes
            marker = curve.style.marker if len(curve.epochs) <= 15 else None
            panel.fill_between(curve.epochs, curve.low, curve.high, color=color, alpha=0.14, linewidth=0)
            style: Any = {"color": color, "linestyle": dashes, "marker": marker, "markersize": 4}
            (line,) = panel.plot(curve.epochs, curve.mean, **style)
            lines.setdefault(curve.name, line)
        panel.set_title(title)
        panel.set_ylim(*_limits(curves))
        tidy(panel)
    # in the order of the first panel's ends
    names = [words(name, 26) for name in lines]
    axes[0].legend(lines.values(), names, loc="upper left", bbox_to_anchor=(1.0, 1.03), handlelength=2.6)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True, nbins=8)
    return figure


def _limits(curves: Sequence[CellCurve]) -> tuple[float, float]:
    start = max(curve.epochs[-1] for curve in curves) / 4
    values = [
        value
        for curve in curves
        for epoch, *ends in zip(curve.epochs, curve.low, curve.high, strict=True)
        if len(curve.epochs) < _LONG or epoch > start
        for value in ends
    ]
    room = (max(values) - min(values)) * 0.06 or 1e-3
    return min(values) - room, max(values) + room
