"""Bars of the training time and peak memory of every cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import networks
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import INK, Look, name_rows, new_figure, note, tidy
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import read_outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS = 40
_HEIGHT = 0.28


@dataclass(frozen=True)
class CellCost:
    """Seconds and MB of each finished run of a cell."""

    look: Look
    name: str
    seconds: list[float]
    megabytes: list[float]


def cost_plots(table: Table, out: Path) -> list[Plot]:
    """A plot for each task with finished runs."""
    plots = []
    for task in table.tasks:
        costs = []
        for network in networks(table):
            outcomes = [read_outcome(out / run.run) for run in network.row.runs if run.task == task]
            results = [outcome.result for outcome in outcomes if outcome.result]
            seconds = [result.train_seconds for result in results]
            if results:
                megabytes = [result.peak_memory_mb for result in results]
                costs.append(CellCost(network.look, network.name, seconds, megabytes))
        if 1 < len(costs) <= _MAX_ROWS:
            plots.append(_plot(table, task, costs))
    return plots


def _plot(table: Table, task: str, costs: Sequence[CellCost]) -> Plot:
    machines = table.provenance.hardware
    caption = f"On {next(iter(machines)) if len(machines) == 1 else f'{len(machines)} different machines'}."
    if max(len(cost.seconds) for cost in costs) > 1:
        caption += " Bars: mean over runs; thin lines: from the lowest to the highest."
    which = f" ({task})" if len(table.tasks) > 1 else ""
    title = f"Training time and peak memory of a run{which}"
    return Plot(f"costs-{task}", title, caption, lambda: _draw(costs))


def _draw(costs: Sequence[CellCost]) -> "Figure":
    figure = new_figure(0.8 + _HEIGHT * len(costs))
    panels = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
    seconds = [cost.seconds for cost in costs]
    megabytes = [cost.megabytes for cost in costs]
    longest, largest = (max(map(max, values)) for values in (seconds, megabytes))
    unit, divisor = (
        ("hours", 3600) if longest >= 10_800 else ("minutes", 60) if longest >= 300 else ("seconds", 1)
    )
    size, scale = ("GB", 1000) if largest >= 10_000 else ("MB", 1)
    labels = (f"training ({unit})", f"peak memory ({size})")
    for axes, label, values, by in zip(panels, labels, (seconds, megabytes), (divisor, scale), strict=True):
        for place, (numbers, cost) in enumerate(zip(values, costs, strict=True)):
            mean, low, high = sum(numbers) / len(numbers) / by, min(numbers) / by, max(numbers) / by
            axes.barh(place, mean, height=0.6, color=cost.look.color)
            if len(numbers) > 1:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
            note(axes, f"{mean:.3g}" if mean < 1000 else f"{mean:,.0f}", high, place)
        axes.set_xlim(0, max(map(max, values)) / by * 1.28)
        axes.locator_params(axis="x", nbins=3)
        axes.set_xlabel(label)
        axes.spines["left"].set_visible(False)
        tidy(axes, "x")
    name_rows(panels[0], [cost.name for cost in costs])
    return figure
