"""Pareto front of a search: the runs that no other run beats in all objectives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.formats.grid import as_numbers
from focal_lab.report.plots.measured import networks, own_rows
from focal_lab.report.plots.scatter import Mark, draw_marks, label_marks
from focal_lab.report.plots.style import (
    INK,
    MUTED,
    SERIES,
    Plot,
    heading,
    new_figure,
    series_style,
    tidy,
    words,
)
from focal_lab.report.table.records import Table
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import COSTS, known_values, objective_values
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a long front, the best by the first objective are named.
_MAX_NAMES = 12


def pareto_plots(table: Table, out: Path, objectives: Mapping[str, str]) -> list[Plot]:
    """A plot for each pair of a search's objectives (column -> maximize or minimize), or of one and GMACs."""
    ways = dict(objectives)
    if len(ways) == 1:
        ways |= {"gmacs": "minimize"}
    # costs on the x axis, in whatever order they are given
    pairs = [sorted(pair, key=lambda key: ways[key] == "maximize") for pair in combinations(ways, 2)]
    return [plot for x, y in pairs if (plot := _plot(table, out, x, y, ways)) is not None]


def _plot(table: Table, out: Path, x: str, y: str, ways: Mapping[str, str]) -> Plot | None:
    groups, marks = _marks(table, out, x, y)
    if len(marks) < 2:
        return None
    front = pareto_front(marks, ways[x], ways[y])
    titles = {key: heading(COLUMNS[key].title) if key in COLUMNS else key for key in (x, y)}
    titles |= {key: f"Validation {title}" for key, title in titles.items() if key not in COSTS}
    return Plot(
        f"pareto-{y}-{x}",
        f"Pareto front: {titles[y]} against {titles[x]}",
        f"Filled: the {len(front)} of {len(marks)} runs that no other one beats in both; "
        "hollow: the others. Each was trained once, so neighbours may change places.",
        partial(_draw, groups, marks, front, titles[x], titles[y]),
    )


def _marks(table: Table, out: Path, x: str, y: str) -> tuple[list[str], list[Mark]]:
    """The levels that colours show, and a mark for each finished run."""
    factor = next((factor for factor in table.factors if _is_group(table, factor)), None)
    groups = list(dict.fromkeys(row.labels[factor] for row in own_rows(table))) if factor else []
    scales = [COLUMNS[key].scale if key in COLUMNS else 1 for key in (x, y)]
    marks = []
    for network in networks(table):
        for run in network.row.runs:
            result = read_outcome(out / run.run).result
            values = objective_values(known_values(result), (x, y)) if result else None
            if values is not None:
                style = series_style(groups.index(network.row.labels[factor]) if factor else 0)
                marks.append(Mark(network.name, values[0] * scales[0], values[1] * scales[1], style))
    return groups, marks


def _is_group(table: Table, factor: str) -> bool:
    """Whether colours can show the factor's levels: few of them, and not numbers."""
    labels = {row.labels.get(factor, "") for row in own_rows(table)}
    return 1 < len(labels) <= len(SERIES) and not as_numbers(list(labels))


def pareto_front(marks: Sequence[Mark], x_way: str, y_way: str) -> list[int]:
    """Indices of the marks that no other one beats, by x."""
    x_sign, y_sign = (1.0 if way == "maximize" else -1.0 for way in (x_way, y_way))
    gains = [(mark.x * x_sign, mark.y * y_sign) for mark in marks]
    kept = [
        index
        for index, mine in enumerate(gains)
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in gains)
    ]
    return sorted(kept, key=lambda index: marks[index].x)


def _draw(
    groups: Sequence[str], marks: Sequence[Mark], front: Sequence[int], x: str, y: str, title: str
) -> "Figure":
    figure = new_figure(3.6 + 0.06 * min(len(front), _MAX_NAMES), title)
    axes = figure.subplots()
    marks = [replace(mark, filled=index in front) for index, mark in enumerate(marks)]
    draw_marks(axes, marks)
    best = [marks[index] for index in front]
    axes.plot([mark.x for mark in best], [mark.y for mark in best], color=MUTED, linewidth=1.0, zorder=1)
    for place, group in enumerate(groups):
        style = series_style(place)
        axes.plot([], [], linestyle="none", marker=style.marker, color=style.color, label=words(group))
    if groups:
        columns = min(3, len(groups))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, fontsize=9, labelcolor=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(0.14)
    tidy(axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    named = sorted(best, key=lambda mark: -mark.y)[:_MAX_NAMES]
    label_marks(axes, marks, named)
    return figure
