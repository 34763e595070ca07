"""Pareto front of a search: the runs that no other run beats in all objectives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.plots.labels import Box, boxes_around, label_points
from focal_lab.report.plots.measured import main_columns, networks, own_rows
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import INK, MUTED, SERIES, heading, new_figure, series_style, tidy, words
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import COSTS, known_values, objective_values
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a long front, the best by the first objective are named.
_MAX_NAMES = 12


@dataclass(frozen=True)
class Proposal:
    """A run of a search with two objectives, in the units of their headings."""

    name: str
    group: str
    x: float
    y: float


def pareto_plots(table: Table, out: Path, objectives: Mapping[str, str] | None = None) -> list[Plot]:
    """A plot for each pair of objectives; none unless the table is a search's.

    Args:
        table: of a search.
        out: folder of its runs.
        objectives: column -> maximize or minimize; None, or a single one: its metric against GMACs.
    """
    if table.order is None:
        return []
    ways = dict(objectives or {column.key: "maximize" for column in main_columns(table)[:1]})
    if len(ways) == 1:
        ways |= {"gmacs": "minimize"}
    # costs on the x axis, in whatever order they are given
    pairs = [sorted(pair, key=lambda key: ways[key] == "maximize") for pair in combinations(ways, 2)]
    return [plot for x, y in pairs if (plot := _plot(table, out, x, y, ways)) is not None]


def _plot(table: Table, out: Path, x: str, y: str, ways: Mapping[str, str]) -> Plot | None:
    proposals = _proposals(table, out, x, y)
    if len(proposals) < 2:
        return None
    front = pareto_front(proposals, ways[x], ways[y])
    titles = {key: heading(COLUMNS[key].title) if key in COLUMNS else key for key in (x, y)}
    titles |= {key: f"Validation {title}" for key, title in titles.items() if key not in COSTS}
    return Plot(
        f"pareto-{y}-{x}",
        f"Pareto front: {titles[y]} against {titles[x]}",
        f"Filled: the {len(front)} of {len(proposals)} runs that no other one beats in both; "
        "hollow: the others. Each was trained once, so neighbours may change places.",
        lambda: _draw(proposals, front, titles[x], titles[y]),
    )


def _proposals(table: Table, out: Path, x: str, y: str) -> list[Proposal]:
    group = next((factor for factor in table.factors if _is_group(table, factor)), None)
    scales = [COLUMNS[key].scale if key in COLUMNS else 1 for key in (x, y)]
    found = []
    for network in networks(table):
        for run in network.row.runs:
            result = read_outcome(out / run.run).result
            values = objective_values(known_values(result), (x, y)) if result else None
            if values is not None:
                label = network.row.labels[group] if group else ""
                found.append(Proposal(network.name, label, values[0] * scales[0], values[1] * scales[1]))
    return found


def _is_group(table: Table, factor: str) -> bool:
    """Whether colours can show the factor's levels: few of them, and not numbers."""
    labels = {row.labels.get(factor, "") for row in own_rows(table)}
    numbers = all(label.replace(".", "").replace("e-", "").isdigit() for label in labels)
    return 1 < len(labels) <= len(SERIES) and not numbers


def pareto_front(proposals: Sequence[Proposal], x_way: str, y_way: str) -> list[int]:
    """Indices of the proposals that no other one beats, by x."""
    x_sign, y_sign = (1.0 if way == "maximize" else -1.0 for way in (x_way, y_way))
    gains = [(one.x * x_sign, one.y * y_sign) for one in proposals]
    kept = [
        index
        for index, mine in enumerate(gains)
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in gains)
    ]
    return sorted(kept, key=lambda index: proposals[index].x)


def _draw(proposals: Sequence[Proposal], front: Sequence[int], x: str, y: str) -> "Figure":
    figure = new_figure(3.6 + 0.06 * min(len(front), _MAX_NAMES))
    axes = figure.subplots()
    groups = list(dict.fromkeys(one.group for one in proposals))
    for index, one in enumerate(proposals):
        style, best = series_style(groups.index(one.group)), index in front
        marks: Any = {"marker": style.marker, "color": style.color, "markersize": 6 if best else 5}
        axes.plot(one.x, one.y, linestyle="none", markerfacecolor=style.color if best else "none", **marks)
    ends = [(proposals[index].x, proposals[index].y) for index in front]
    axes.plot([x for x, _ in ends], [y for _, y in ends], color=MUTED, linewidth=1.0, zorder=1)
    if len(groups) > 1:
        for place, group in enumerate(groups):
            style = series_style(place)
            axes.plot([], [], linestyle="none", marker=style.marker, color=style.color, label=words(group))
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(3, len(groups)), fontsize=9, labelcolor=INK
        )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(0.14)
    tidy(axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    named = sorted(front, key=lambda index: -proposals[index].y)[:_MAX_NAMES]
    others = [(one.x, one.y) for index, one in enumerate(proposals) if index not in named]
    label_points(
        axes,
        [(proposals[index].x, proposals[index].y) for index in named],
        [words(proposals[index].name, 30) for index in named],
        [*boxes_around(axes, others, 6), *_boxes_along(axes, ends)],
    )
    return figure


def _boxes_along(axes: "Axes", ends: Sequence[tuple[float, float]]) -> list[Box]:
    """Boxes along the front's line, which keep labels off it."""
    boxes: list[Box] = []
    for (x, y), (u, v) in pairwise(axes.transData.transform(end) for end in ends):
        # not at the marks themselves, where their labels stand
        steps = int(hypot(u - x, v - y) / 8)
        for part in (k / steps for k in range(2, steps - 1)):
            px, py = x + (u - x) * part, y + (v - y) * part
            boxes.append((px - 6, py - 6, px + 6, py + 6))
    return boxes
