"""Accuracy within groups of test images is plotted where results have it."""

from pathlib import Path

import matplotlib
import pytest
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.plots import sweep_plots
from focal_lab.report.plots.by_group import group_plots
from focal_lab.report.plots.style import Plot, settings
from focal_lab.report.table.build import build_table

# accuracy of both cells at each distance, over three seeds
SEEN = {0: {1: (64, 62, 66), 2: (50, 49, 51)}, 1: {1: (97, 97, 97), 2: (96, 97, 98)}}


def plan_with(seeds: int, out: Path, cells: tuple[int, ...] = (0, 1)) -> FakePlan:
    plan = make_plan({"interactions": ["Window", "Global"]}, seeds=range(seeds))
    for cell in cells:
        for seed in range(seeds):
            by_distance = {f"top1_distance_{d}": float(values[seed]) for d, values in SEEN[cell].items()}
            metrics = {"top1": 50.0, "top5": 100.0, "loss": 1.0} | by_distance
            finish(out, run_id(cell, seed), metrics=metrics, seed=seed)
    return plan


def only_plot(plan: FakePlan, out: Path) -> Plot:
    (plot,) = group_plots(build_table(plan, out), out)
    return plot


def test_each_cell_is_a_line_of_means_with_intervals_against_the_group(out: Path) -> None:
    plan = plan_with(3, out)
    plot = only_plot(plan, out)
    assert (plot.name, plot.title) == ("groups-distance", "Top-1 (%) by distance")
    assert plot.caption.startswith("Points: mean over 3 seeds. Bars: 95 % interval of the mean")
    (axes,) = plot.draw().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), list(axes.get_xticks())) == (
        "distance",
        "Top-1 (%)",
        [1, 2],
    )
    lines = {container.get_label(): container.lines for container in axes.containers}
    assert {name: list(line[0].get_ydata()) for name, line in lines.items()} == {
        "Window": [64, 50],
        "Global": [97, 97],
    }
    (low, high) = lines["Window"][2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((64 - 4.97, 64 + 4.97), abs=0.01)  # t(2) = 4.303, sd = 2


def test_fewer_than_three_seeds_have_no_intervals(out: Path) -> None:
    plot = only_plot(plan_with(2, out), out)
    assert "No intervals" in plot.caption
    assert all(not container.has_yerr for container in plot.draw().axes[0].containers)


def test_one_cell_with_groups_is_not_plotted(out: Path) -> None:
    plan = plan_with(3, out, cells=(1,))
    assert group_plots(build_table(plan, out), out) == []


def test_results_without_groups_have_no_such_plot(out: Path) -> None:
    plan = make_plan({"interactions": ["Window", "Global"]})
    for cell in range(2):
        finish(out, run_id(cell, 0))
    assert group_plots(build_table(plan, out), out) == []


def test_the_plot_is_one_of_the_sweeps_and_its_texts_fit(out: Path) -> None:
    plan = plan_with(3, out)
    plots = {plot.name: plot for plot in sweep_plots(build_table(plan, out), plan, out)}
    figure = plots["groups-distance"].draw()
    with matplotlib.rc_context(settings()):
        figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x1 <= figure.get_figwidth() + 0.05
