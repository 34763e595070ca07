"""The Pareto front of a search: the runs that no other one beats in all objectives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import main_columns, networks, own_rows
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import INK, MUTED, SERIES, heading, look, new_figure, tidy, words
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.run_folder.result import (
    COSTS,
    CorruptRecordError,
    known_values,
    objective_values,
    read_result,
)
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a long front the best by the first objective are named.
_MOST_NAMES = 12


@dataclass(frozen=True)
class Trial:
    """A proposal and what it reached in two objectives, in the units of their headings."""

    name: str
    group: str
    x: float
    y: float


def front_plots(table: Table, out: Path, objectives: Mapping[str, str] | None = None) -> list[Plot]:
    """A plot for each pair of objectives; none unless the table is a search's.

    Args:
        table: of a search.
        out: where its runs are.
        objectives: column -> maximize or minimize; None, or a single one: its metric against GMACs.
    """
    if table.order is None:
        return []
    ways = dict(objectives or {})
    if not ways:
        ways = {column.key: "maximize" for column in main_columns(table)[:1]}
    if len(ways) == 1:
        ways |= {"gmacs": "minimize"}
    # costs on the x axis, whatever order they were written in
    pairs = [sorted(pair, key=lambda key: ways[key] == "maximize") for pair in combinations(ways, 2)]
    return [plot for x, y in pairs if (plot := _plot(table, out, x, y, ways)) is not None]


def _plot(table: Table, out: Path, x: str, y: str, ways: Mapping[str, str]) -> Plot | None:
    trials = _trials(table, out, x, y)
    if len(trials) < 2:
        return None
    front = pareto(trials, ways[x], ways[y])
    titles = {key: heading(COLUMNS[key].title) if key in COLUMNS else key for key in (x, y)}
    titles |= {key: f"Validation {title}" for key, title in titles.items() if key not in COSTS}
    return Plot(
        name=f"front-{y}-{x}",
        title=f"Pareto front: {titles[y]} against {titles[x]}",
        caption=(
            f"Filled: the {len(front)} of {len(trials)} runs that no other one beats in both; "
            "hollow: the others. Each was trained once, so neighbours may change places."
        ),
        drawing=lambda: _draw(trials, front, titles[x], titles[y]),
    )


def _trials(table: Table, out: Path, x: str, y: str) -> list[Trial]:
    group = next((factor for factor in table.factors if _is_group(table, factor)), None)
    trials = []
    for network in networks(table):
        for run in network.row.runs:
            try:
                result = read_result(out / run.run) if run.state is State.FINISHED else None
            except CorruptRecordError:  # since the table was made
                result = None
            values = objective_values(known_values(result), (x, y)) if result else None
            if values is not None:
                label = network.row.labels[group] if group else ""
                trials.append(Trial(network.name, label, _scaled(x, values[0]), _scaled(y, values[1])))
    return trials


def _scaled(key: str, value: float) -> float:
    return value * COLUMNS[key].scale if key in COLUMNS else value


def _is_group(table: Table, factor: str) -> bool:
    """Whether colours can tell the factor's levels apart: few, and no numbers."""
    labels = {row.labels.get(factor, "") for row in own_rows(table)}
    numbers = all(label.replace(".", "").replace("e-", "").isdigit() for label in labels)
    return 1 < len(labels) <= len(SERIES) and not numbers


def pareto(trials: Sequence[Trial], x_way: str, y_way: str) -> list[int]:
    """Indices of the trials that no other one beats, by x."""
    signs = [1.0 if way == "maximize" else -1.0 for way in (x_way, y_way)]
    gains = [(trial.x * signs[0], trial.y * signs[1]) for trial in trials]
    kept = [
        index
        for index, mine in enumerate(gains)
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in gains)
    ]
    return sorted(kept, key=lambda index: trials[index].x)


def _draw(trials: Sequence[Trial], front: Sequence[int], x: str, y: str) -> "Figure":
    from focal_lab.report.plots.labels import label_points

    figure = new_figure(3.6 + 0.06 * min(len(front), _MOST_NAMES))
    axes = figure.subplots()
    groups = list(dict.fromkeys(trial.group for trial in trials))
    for index, trial in enumerate(trials):
        style = look(groups.index(trial.group))
        face = style.color if index in front else "none"
        axes.plot(
            trial.x,
            trial.y,
            linestyle="none",
            marker=style.marker,
            color=style.color,
            markerfacecolor=face,
            markersize=6 if index in front else 5,
        )
    ends = [(trials[index].x, trials[index].y) for index in front]
    axes.plot([px for px, _ in ends], [py for _, py in ends], color=MUTED, linewidth=1.0, zorder=1)
    for place, group in enumerate(groups):
        style = look(place)
        axes.plot([], [], linestyle="none", marker=style.marker, color=style.color, label=words(group))
    if len(groups) > 1:
        columns = min(3, len(groups))
        above = axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False)
        for text in above.get_texts():
            text.set(fontsize=9, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(0.14)
    tidy(axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    named = sorted(front, key=lambda index: -trials[index].y)[:_MOST_NAMES]
    points = [(trials[index].x, trials[index].y) for index in named]
    others = [
        (float(px), float(py))
        for px, py in (axes.transData.transform((t.x, t.y)) for i, t in enumerate(trials) if i not in named)
    ]
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in [*others, *_along(axes, ends)]]
    label_points(axes, points, [words(trials[index].name, 30) for index in named], taken)
    return figure


def _along(axes: "Axes", ends: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of the front's line, close enough to keep labels off it, in pixels."""
    pixels = [axes.transData.transform(end) for end in ends]
    found: list[tuple[float, float]] = []
    for (x, y), (u, v) in pairwise(pixels):
        # not the marks themselves, beside which their labels stand
        steps = int(hypot(u - x, v - y) / 8)
        found += [(x + (u - x) * k / steps, y + (v - y) * k / steps) for k in range(2, steps - 1)]
    return found
