"""Accuracy within groups of test images, such as against the distance between cue and answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import networks
from focal_lab.report.plots.style import Plot, SeriesStyle, new_figure, tidy, words
from focal_lab.report.statistics.crossed import Estimate, over_seeds
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.records import Row, Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.run_folder.result import CorruptRecordError, read_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# as `focal_lab.tasks.groups` names the metrics
_METRIC = re.compile(r"top1_(\w+)_(-?\d+)")
_MAX_SERIES = 24
_TASK = "classification"


@dataclass(frozen=True)
class GroupSeries:
    """Accuracy of a cell within each group, over its seeds."""

    style: SeriesStyle
    name: str
    estimates: dict[int, Estimate]


def group_plots(table: Table, out: Path) -> list[Plot]:
    """A plot for each name of groups that two cells have; reads one result a cell where there are none."""
    series: dict[str, list[GroupSeries]] = {}
    for network in networks(table)[:_MAX_SERIES]:
        for name, groups in _values(network.row, out).items():
            estimates = {group: over_seeds(values) for group, values in sorted(groups.items())}
            series.setdefault(name, []).append(GroupSeries(network.style, network.name, estimates))
    return [_plot(name, shown) for name, shown in series.items() if len(shown) > 1]


def _plot(name: str, shown: Sequence[GroupSeries]) -> Plot:
    counts = sorted({one.n for each in shown for one in each.estimates.values()})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bars = "No intervals"
    if counts[-1] >= LEAST_SEEDS:
        bars = "Bars: 95 % interval of the mean over seeds, without the noise of the test images"
    caption = f"Points: mean over {seeds} seeds. {bars}; none for fewer than {LEAST_SEEDS} seeds."
    title = f"Top-1 (%) by {name.replace('_', ' ')}"
    return Plot(f"groups-{name}", title, caption, partial(_draw, name, shown))


def _values(row: Row, out: Path) -> Mapping[str, dict[int, list[float]]]:
    """Name of groups -> group -> accuracy of each finished run of a row that counts."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in row.runs:
        if run.task != _TASK or run.state is not State.FINISHED or not run.counts:
            continue
        try:
            result = read_result(out / run.run)
        except CorruptRecordError:  # it was replaced since the table was made
            continue
        for metric, value in ({} if result is None else result.metrics).items():
            if match := _METRIC.fullmatch(metric):
                found.setdefault(match[1], {}).setdefault(int(match[2]), []).append(value)
        if not found:
            break
    return found


def _draw(name: str, shown: Sequence[GroupSeries], title: str) -> "Figure":
    figure = new_figure(max(2.6, 0.6 + 0.18 * len(shown)), title)
    axes = figure.subplots()
    for place, one in enumerate(shown):
        # beside each other, because intervals of equal accuracies would cover each other
        shift = 0.06 * (place - (len(shown) - 1) / 2) / max(1, len(shown) / 8)
        widths = [estimate.half_width for estimate in one.estimates.values()]
        enough = all(estimate.n >= LEAST_SEEDS for estimate in one.estimates.values())
        axes.errorbar(
            [group + shift for group in one.estimates],
            [estimate.mean or 0.0 for estimate in one.estimates.values()],
            yerr=[width or 0.0 for width in widths] if enough else None,
            color=one.style.color,
            linestyle=one.style.dashes,
            marker=one.style.marker,
            elinewidth=1.1,
            label=words(one.name, 26),
        )
    axes.set_xlabel(name.replace("_", " "))
    axes.set_ylabel("Top-1 (%)")
    axes.set_xticks(sorted({group for one in shown for group in one.estimates}))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), handlelength=2.6)
    tidy(axes)
    return figure
