"""What runs took: time and memory of every cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import networks
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import INK, SMALL, Look, new_figure, tidy, words
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.run_folder.result import CorruptRecordError, Result, read_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 40
_HEIGHT = 0.28


@dataclass(frozen=True)
class Cost:
    """What the runs of a cell took: seconds and MB of each."""

    look: Look
    name: str
    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]


def cost_plots(table: Table, out: Path) -> list[Plot]:
    """A plot for each task with finished runs."""
    plots = []
    for task in table.tasks:
        costs = [cost for cost in _costs(table, out, task) if cost.seconds]
        if 1 < len(costs) <= _MOST:
            plots.append(_plot(table, task, costs))
    return plots


def _costs(table: Table, out: Path, task: str) -> list[Cost]:
    costs = []
    for network in networks(table):
        runs = [run for run in network.row.runs if run.task == task and run.state is State.FINISHED]
        results = [result for run in runs if (result := _result(out / run.run)) is not None]
        costs.append(
            Cost(
                network.look,
                network.name,
                tuple(result.train_seconds for result in results),
                tuple(result.peak_memory_mb for result in results),
            )
        )
    return costs


def _result(folder: Path) -> Result | None:
    try:
        return read_result(folder)
    except CorruptRecordError:  # since the table was made
        return None


def _plot(table: Table, task: str, costs: Sequence[Cost]) -> Plot:
    machines = table.provenance.hardware
    where = f"On {next(iter(machines))}." if len(machines) == 1 else f"On {len(machines)} different machines."
    several = " Bars: mean over runs; thin lines: from the least to the most."
    which = f" ({task})" if len(table.tasks) > 1 else ""
    return Plot(
        name=f"costs-{task}",
        title=f"Training time and peak memory of a run{which}",
        caption=where + (several if max(len(cost.seconds) for cost in costs) > 1 else ""),
        drawing=lambda: _draw(costs),
    )


def _draw(costs: Sequence[Cost]) -> "Figure":
    figure = new_figure(0.8 + _HEIGHT * len(costs))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
    unit, factor = _unit(max(max(cost.seconds) for cost in costs))
    _bars(left, [tuple(value * factor for value in cost.seconds) for cost in costs], costs)
    left.set_xlabel(f"training ({unit})")
    most = max(max(cost.megabytes) for cost in costs)
    size, scale = ("GB", 1e-3) if most >= 10_000 else ("MB", 1.0)
    _bars(right, [tuple(value * scale for value in cost.megabytes) for cost in costs], costs)
    right.set_xlabel(f"peak memory ({size})")
    left.set_yticks(range(len(costs)), [words(cost.name, 26) for cost in costs])
    left.set_ylim(len(costs) - 0.45, -0.55)
    return figure


def _bars(axes: "Axes", values: Sequence[Sequence[float]], costs: Sequence[Cost]) -> None:
    for place, (numbers, cost) in enumerate(zip(values, costs, strict=True)):
        mean = sum(numbers) / len(numbers)
        axes.barh(place, mean, height=0.6, color=cost.look.color)
        if len(numbers) > 1:
            axes.plot([min(numbers), max(numbers)], [place, place], color=INK, linewidth=1.2)
        axes.annotate(
            f"{mean:.3g}" if mean < 1000 else f"{mean:,.0f}",
            (max(numbers), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    axes.set_xlim(0, max(max(numbers) for numbers in values) * 1.28)
    axes.locator_params(axis="x", nbins=3)
    tidy(axes, "x")
    axes.spines["left"].set_visible(False)


def _unit(seconds: float) -> tuple[str, float]:
    if seconds >= 3 * 3600:
        return "hours", 1 / 3600
    return ("minutes", 1 / 60) if seconds >= 300 else ("seconds", 1.0)
