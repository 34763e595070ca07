"""Main effects: the mean metric of each level of a factor, averaged over the other factors."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import interval, main_columns, own_rows
from focal_lab.report.plots.style import SERIES, Plot, heading, name_rows, new_figure, note, tidy, words
from focal_lab.report.statistics.crossed import Estimate, over_seeds
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.records import Row, Table
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# factor -> level -> mean over its cells
Effects = dict[str, dict[str, Estimate]]


def effect_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric, if the rows are all combinations of several factors' levels."""
    rows = own_rows(table)
    levels = {factor: list(dict.fromkeys(row.labels[factor] for row in rows)) for factor in table.factors}
    varied = [factor for factor in table.factors if len(levels[factor]) > 1]
    if len(varied) < 2 or len(rows) != prod(map(len, levels.values())):
        return []
    plots = []
    for column in main_columns(table):
        effects: Effects = {}
        for factor in varied:
            for level in levels[factor]:
                mean = _mean_over([row for row in rows if row.labels[factor] == level], column)
                if mean.mean is not None:
                    effects.setdefault(factor, {})[level] = mean
        if sum(map(len, effects.values())) > 1:
            plots.append(_plot(column, effects))
    return plots


def _mean_over(cells: Sequence[Row], column: Column) -> Estimate:
    """Mean over cells, seed by seed, of the seeds that all cells have."""
    values = [row.entries[column.key].values for row in cells]
    seeds = set.intersection(*map(set, values)) if values else set()
    return over_seeds([sum(found[seed] for found in values) / len(values) for seed in sorted(seeds)])


def _plot(column: Column, effects: Effects) -> Plot:
    most = max(mean.n for levels in effects.values() for mean in levels.values())
    bars = "; bars: 95 % t-interval over seeds" if most >= LEAST_SEEDS else ""
    return Plot(
        f"effects-{column.key}",
        f"Main effects on {heading(column.title)}",
        f"Each mark: mean over all cells of the level{bars}. Only seeds that all of these cells have.",
        partial(_draw, column, effects),
    )


def _draw(column: Column, effects: Effects, title: str) -> "Figure":
    figure = new_figure(0.6 + sum(0.42 + 0.3 * len(levels) for levels in effects.values()), title)
    ratios = [1.0 + 0.75 * len(levels) for levels in effects.values()]
    panels = figure.subplots(len(effects), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    ends: list[float] = []
    for place, (axes, (factor, levels)) in enumerate(zip(panels, effects.items(), strict=True)):
        for y, found in enumerate(levels.values()):
            mean, half_width = found.mean or 0.0, interval(found)
            ends += [mean - (half_width or 0.0), mean + (half_width or 0.0)]
            axes.errorbar(
                mean, y, xerr=half_width, color=SERIES[place % len(SERIES)], marker="o", elinewidth=1.2
            )
            note(axes, f"{mean:.{column.digits}f}", mean, y, xytext=(0, 5), ha="center", va="bottom")
        axes.set_title(words(factor.replace("_", " ")))
        name_rows(axes, list(levels), above=0.75)
        tidy(axes)
    room = (max(ends) - min(ends)) * 0.1 or 1.0
    panels[-1].set_xlim(min(ends) - room, max(ends) + room)
    panels[-1].set_xlabel(heading(column.title))
    return figure
