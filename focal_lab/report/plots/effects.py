"""Main effects: what a level of a factor is worth, averaged over everything else that was varied."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import interval, main_columns, own_rows
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import SERIES, SMALL, heading, new_figure, tidy, words
from focal_lab.report.table.model import Row, Table
from focal_lab.report.table.statistics import LEAST_SEEDS, Sample, sample
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Effect:
    """A level of a factor, and the mean over its cells."""

    factor: str
    level: str
    found: Sample


def effect_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric; none for a single factor, whose rows say it all, or a search."""
    factors = [factor for factor in table.factors if len(_levels(table, factor)) > 1]
    if table.order is not None or len(factors) < 2:
        return []
    found = [(column, _effects(table, factors, column)) for column in main_columns(table)]
    return [_plot(table, column, effects) for column, effects in found if len(effects) > 1]


def is_grid(table: Table) -> bool:
    """Whether the rows are all combinations of the factors' levels."""
    rows = own_rows(table)
    every = prod(len(_levels(table, factor)) for factor in table.factors)
    return len({tuple(row.labels.items()) for row in rows}) == len(rows) == every


def _levels(table: Table, factor: str) -> list[str]:
    return list(dict.fromkeys(row.labels[factor] for row in own_rows(table) if factor in row.labels))


def _effects(table: Table, factors: Sequence[str], column: Column) -> list[Effect]:
    """Levels whose cells have seeds in common; without a grid, of the rows beside the first one."""
    grid, first, effects = is_grid(table), own_rows(table)[0].labels, []
    for factor in factors:
        for level in _levels(table, factor):
            cells = [
                row
                for row in own_rows(table)
                if row.labels.get(factor) == level
                and (
                    grid
                    or all(row.labels.get(other) == first.get(other) for other in factors if other != factor)
                )
            ]
            found = _mean_over(cells, column)
            if found.mean is not None:
                effects.append(Effect(factor, level, found))
    return effects


def _mean_over(cells: Sequence[Row], column: Column) -> Sample:
    """Mean over cells, seed by seed: only seeds that all cells have."""
    values = [row.entries[column.key].values for row in cells]
    seeds = set.intersection(*(set(found) for found in values)) if values else set()
    return sample([sum(found[seed] for found in values) / len(values) for seed in sorted(seeds)])


def _plot(table: Table, column: Column, effects: Sequence[Effect]) -> Plot:
    counts = {effect.found.n for effect in effects}
    how = "mean over all cells of the level" if is_grid(table) else "the other factors at their first level"
    bars = "; bars: 95 % t-interval over seeds" if max(counts) >= LEAST_SEEDS else ""
    return Plot(
        name=f"effects-{column.key}",
        title=f"Main effects on {heading(column.title)}",
        caption=f"Each mark: {how}{bars}. Only seeds that all of these cells have.",
        drawing=lambda: _draw(column, effects),
    )


def _draw(column: Column, effects: Sequence[Effect]) -> "Figure":
    factors = list(dict.fromkeys(effect.factor for effect in effects))
    groups = [[effect for effect in effects if effect.factor == factor] for factor in factors]
    figure = new_figure(0.6 + sum(0.42 + 0.3 * len(group) for group in groups))
    ratios = [1.0 + 0.75 * len(group) for group in groups]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    ends: list[float] = []
    for place, (axes, factor, group) in enumerate(zip(panels, factors, groups, strict=True)):
        color = SERIES[place % len(SERIES)]
        means = [effect.found.mean or 0.0 for effect in group]
        widths = [interval(effect.found) for effect in group]
        ends += [
            mean + sign * (width or 0.0)
            for mean, width in zip(means, widths, strict=True)
            for sign in (-1, 1)
        ]
        for y in range(len(group)):
            axes.errorbar(means[y], y, xerr=widths[y], color=color, marker="o", capsize=3, elinewidth=1.2)
            axes.annotate(
                f"{means[y]:.{column.digits}f}",
                (means[y], y),
                (0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL,
            )
        axes.set_title(words(factor.replace("_", " ")))
        axes.set_yticks(range(len(group)), [words(effect.level) for effect in group])
        axes.set_ylim(len(group) - 0.5, -0.75)
        tidy(axes)
        axes.spines["left"].set_visible(False)
    room = (max(ends) - min(ends)) * 0.1 or 1.0
    panels[-1].set_xlim(min(ends) - room, max(ends) + room)
    panels[-1].set_xlabel(heading(column.title))
    return figure
