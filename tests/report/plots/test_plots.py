import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.finished_runs import FakePlan, fail, finish, make_plan, run_id
from support.plotted_runs import grid_plan, many_plan, search_plan, train

from focal_lab.errors import UserError
from focal_lab.report.plots import save_plots, sweep_plots
from focal_lab.report.plots.measured import interval_words, row_styles
from focal_lab.report.plots.pareto_front import pareto_front
from focal_lab.report.plots.scatter import Mark
from focal_lab.report.plots.style import GRID, INK, MUTED, PAPER, PLAIN, SERIES, Plot, settings
from focal_lab.report.table.build import build_table
from focal_lab.sweep.spec.sweep_file import Level
from focal_lab.training.history_file import Point, write_history

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def grid(out: Path) -> FakePlan:
    plan = grid_plan()
    train(plan, out)
    return plan


@pytest.fixture
def pair(out: Path) -> FakePlan:
    """Two cells, which have three plots."""
    plan = make_plan({"window_size": ["7", "14"]})
    train(plan, out, epochs=2)
    return plan


def plots_of(plan: Any, out: Path) -> dict[str, Plot]:
    return {plot.name: plot for plot in sweep_plots(build_table(plan, out), plan, out)}


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_finished_grid_has_every_plot_that_there_is_data_for(out: Path, grid: FakePlan) -> None:
    names = ["tradeoff-top1", "bars-top1", "effects-top1", "curves-classification"]
    assert list(plots_of(grid, out)) == names


def test_without_results_or_with_one_cell_there_is_nothing_to_plot(out: Path) -> None:
    assert plots_of(grid_plan(), out) == {}
    plan = make_plan({"window_size": ["7"]})
    finish(out, run_id(0, 0))
    assert plots_of(plan, out) == {}


def test_without_curves_and_with_one_factor_those_plots_are_left_out(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]})
    for cell in range(2):
        finish(out, run_id(cell, 0))
    assert list(plots_of(plan, out)) == ["tradeoff-top1", "bars-top1"]


@pytest.mark.parametrize(
    "plan", [grid_plan(), many_plan(seeds=2), search_plan()], ids=["grid", "many", "search"]
)
def test_every_plot_is_written_in_every_format(out: Path, plan: FakePlan) -> None:
    train(plan, out)
    table = build_table(plan, out)
    written = save_plots(table, plan, out, Path("plots"))
    assert len(written) == 3 * len(plots_of(plan, out)) > 0
    for path in written:
        assert path.name.startswith(f"{table.name}-")
        assert path.read_bytes().startswith(MAGIC[path.suffix[1:]])


def test_the_same_results_give_the_same_files(out: Path, pair: FakePlan) -> None:
    table = build_table(pair, out)
    first, second = (save_plots(table, pair, out, Path(name)) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_plots_that_cannot_be_written_are_a_users_error(out: Path, grid: FakePlan) -> None:
    table = build_table(grid, out)
    Path("taken").touch()
    with pytest.raises(UserError, match=r"^--plots: cannot write to taken: "):
        save_plots(table, grid, out, Path("taken"))
    with pytest.raises(UserError, match="nothing to plot yet"):
        save_plots(build_table(grid, Path("empty")), grid, Path("empty"), Path("plots"))


@pytest.mark.parametrize("plan", [grid_plan(), many_plan(seeds=3), search_plan()], ids=["4", "20", "search"])
def test_no_text_overlaps_another_or_leaves_the_figure(out: Path, plan: FakePlan) -> None:
    train(plan, out)
    for plot in plots_of(plan, out).values():
        figure = plot.draw()
        with matplotlib.rc_context(settings()):
            figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        shown = [
            (text.get_text(), Text.get_window_extent(text, renderer)) for text in texts if _is_inside(text)
        ]
        for word, box in shown:
            assert box.x0 >= -1, (plot.name, word)
            assert box.x1 <= figure.bbox.width + 1, (plot.name, word)
            assert box.y0 >= -1, (plot.name, word)
            assert box.y1 <= figure.bbox.height + 1, (plot.name, word)
        for (first, a), (second, b) in combinations(shown, 2):
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width <= 1 or height <= 1.5, (plot.name, first, second)


def _is_inside(text: Text) -> bool:
    """Tick labels outside the limits of an axis exist, but are not drawn."""
    for axes in text.figure.axes if text.figure else []:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in axis.get_major_ticks():
                if text in (tick.label1, tick.label2):
                    shown = min(limits) - 1e-9 <= tick.get_loc() <= max(limits) + 1e-9
                    return bool(shown and tick.label1.get_visible() and text is tick.label1)
    return True


def test_labels_are_not_parsed_as_math(out: Path) -> None:
    plan = make_plan({"f": ["$x^2$", "a_b$", "$\\broken{"]}, seeds=(0, 1))
    train(plan, out)
    for plot in plots_of(plan, out).values():
        figure = plot.draw()
        figure.draw_without_rendering()
        assert "$" in "".join(words_of(figure))


def test_measured_and_published_have_axes_of_their_own_unless_the_data_are_the_same(
    out: Path, grid: FakePlan
) -> None:
    here = plots_of(replace(grid, paper_images={}), out)
    panels = {name: len(plot.draw().axes) for name, plot in here.items()}
    assert panels["tradeoff-top1"] == 2
    assert panels["bars-top1"] == 2
    there = plots_of(grid, out)
    assert len(there["tradeoff-top1"].draw().axes) == 1
    left, right = there["bars-top1"].draw().axes
    assert left.get_xlim() == right.get_xlim()
    assert "other data and another scale" in here["bars-top1"].caption
    assert "other data" not in there["bars-top1"].caption


def test_intervals_are_drawn_from_three_seeds_on(out: Path) -> None:
    for seeds in (2, 3):
        plan = make_plan({"window_size": ["7", "14"]}, seeds=range(seeds), name=f"s{seeds}")
        train(plan, out, epochs=2)
        found = plots_of(plan, out)
        bars = list(found["tradeoff-top1"].draw().axes[0].collections)
        assert len(bars) == (2 if seeds == 3 else 0)
        caption = "Bars: 95 % interval of the mean over 3 seeds." if seeds == 3 else "Fewer than 3 seeds"
        assert found["bars-top1"].caption.startswith(caption)


def test_captions_say_whether_intervals_are_over_the_test_images_too(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]})
    train(plan, out, epochs=2)
    first, second = (row.entries["top1"] for row in build_table(plan, out).rows)
    assert interval_words([first, second]) == "Bars: 95 % interval of the mean over 3 seeds."
    both = [replace(entry, images=500) for entry in (first, second)]
    assert interval_words(both) == "Bars: 95 % interval of the mean over 3 seeds and the test images."
    assert interval_words([both[0], second]) == (
        "Bars: 95 % interval of the mean over 3 seeds and, where runs have predictions, the test images."
    )


def test_rows_that_only_the_paper_has_are_shown_as_published_and_nowhere_else(out: Path) -> None:
    plan = make_plan({"backbone": ["Swin-Tiny", "Focal-Tiny"]}, paper="table2_imagenet1k")
    train(plan, out, epochs=2)
    found = plots_of(replace(plan, paper_images={}), out)
    measured, published = found["tradeoff-top1"].draw().axes
    names = [{text.get_text() for text in axes.texts} for axes in (measured, published)]
    assert names[0] == {"Swin-Tiny", "Focal-Tiny"}
    assert {"Swin-Tiny", "Focal-Tiny", "ResNet-50", "ViL-Small"} <= names[1]
    assert "ResNet-50" not in words_of(found["bars-top1"].draw())
    together = plots_of(plan, out)["tradeoff-top1"].draw()
    assert [text.get_text() for text in together.axes[0].texts].count("Swin-Tiny") == 1


def test_the_plot_of_effects_shows_the_differences_and_intervals_of_the_table(out: Path) -> None:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"], "shift": ["no", "yes"]}
    plan = grid_plan(factors=factors, paper=None)
    train(plan, out)
    effects = build_table(plan, out).effects
    figure = plots_of(plan, out)["effects-top1"].draw()
    words = words_of(figure)
    for effect in effects:
        percent = "" if effect.percent is None else f" ({effect.percent:.0f} %)"
        assert f"{effect.difference:+.1f}{percent}" in words
    assert {"shift, against no", "Focal-Tiny, yes", "all factors"} <= set(words)
    bars = [bar for axes in figure.axes for bar in axes.containers]
    ends = sorted(tuple(bar.lines[2][0].get_segments()[0][:, 0]) for bar in bars)  # type: ignore[attr-defined]
    widths = [(effect.difference, effect.half_width or 0.0) for effect in effects]
    expected = sorted((middle - width, middle + width) for middle, width in widths)
    assert ends == [pytest.approx(pair) for pair in expected]


def test_a_cell_without_results_leaves_no_plot_of_effects(out: Path) -> None:
    plan = grid_plan()
    for cell in range(3):
        finish(out, run_id(cell, 0))
    assert "effects-top1" not in plots_of(plan, out)
    finish(out, run_id(3, 0))
    assert plots_of(plan, out)["effects-top1"].caption.endswith("Fewer than 3 seeds; n = 1.")


def test_curves_are_means_of_finished_seeds_with_the_range_as_a_band(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, seeds=(0, 1, 2))
    for seed, values in enumerate(((50.0, 60.0), (54.0, 70.0))):
        finish(out, run_id(0, seed))
        points = [
            Point(epoch, 1, {"val/top1": value}) for epoch, value in zip((1.0, 2.0), values, strict=True)
        ]
        write_history(out / run_id(0, seed), points)
    write_history(out / run_id(0, 2), [Point(1.0, 1, {"val/top1": 1.0})])  # still training
    (axes,) = plots_of(plan, out)["curves-classification"].draw().axes
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 2]  # type: ignore[arg-type]
    assert list(line.get_ydata()) == [52.0, 65.0]  # type: ignore[arg-type]
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]  # type: ignore[index]
    assert {50.0, 54.0, 60.0, 70.0} <= set(heights.tolist())


def test_the_pareto_front_has_the_marks_that_no_other_beats() -> None:
    points = [(1.0, 80.0), (2.0, 85.0), (2.0, 84.0), (3.0, 85.0), (0.5, 70.0)]
    marks = [Mark(str(place), x, y, PLAIN) for place, (x, y) in enumerate(points)]
    assert pareto_front(marks, "minimize", "maximize") == [4, 0, 1]
    assert pareto_front(marks, "maximize", "maximize") == [3]


def test_a_search_shows_its_pareto_front_and_no_bars(out: Path) -> None:
    plan = search_plan()
    train(plan, out, epochs=2)
    names = list(plots_of(plan, out))
    assert names[0] == "pareto-top1-gmacs"
    assert not any(name.startswith(("bars", "effects", "tradeoff", "curves")) for name in names)


def test_failed_and_missing_cells_are_named_in_the_bars(out: Path, mixed: FakePlan) -> None:
    words = words_of(plots_of(mixed, out)["bars-top1"].draw())
    assert {"failed", "corrupt", "missing", "88.5 (n=1)"} <= set(words)


def test_tasks_have_plots_of_their_own(out: Path) -> None:
    plan = grid_plan(tasks=("classification", "detection"), seeds=(0, 1))
    train(plan, out, epochs=3)
    names = set(plots_of(plan, out))
    assert {"bars-top1", "bars-ap_box", "curves-detection", "tradeoff-ap_box"} <= names


def test_pruned_and_failed_runs_do_not_disturb_the_others(out: Path) -> None:
    plan = grid_plan()
    train(plan, out, epochs=3)
    (out / run_id(3, 0) / "result.json").unlink()
    fail(out, run_id(3, 0))
    assert "bars-top1" in plots_of(plan, out)


def test_drawing_changes_no_global_setting_and_imports_no_pyplot(out: Path, pair: FakePlan) -> None:
    before = dict(matplotlib.rcParams)
    save_plots(build_table(pair, out), pair, out, Path("plots"))
    assert dict(matplotlib.rcParams) == before
    code = (
        "import json, sys; from pathlib import Path; from focal_lab.report.plots import sweep_plots\n"
        "early = sorted(sys.modules)\n"
        "from focal_lab.report.plots.style import new_figure; new_figure(2.0).draw_without_rendering()\n"
        "print(json.dumps([early, sorted(sys.modules)]))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = json.loads(child.stdout)
    assert {"matplotlib", "scipy", "torch", "pandas"}.isdisjoint(early)
    assert "matplotlib.figure" in late
    assert {"matplotlib.pyplot", "torch"}.isdisjoint(late)


@pytest.mark.parametrize("color", SERIES)
def test_series_and_texts_have_enough_contrast(color: str) -> None:
    assert contrast(color, PAPER) >= 3
    assert contrast(INK, PAPER) >= 7
    assert contrast(MUTED, PAPER) >= 4.5
    assert contrast(GRID, PAPER) < 2


def contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio."""
    light = sorted((luminance(first), luminance(second)))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_rows_of_few_cells_have_colours_of_their_own_and_of_many_their_groups(
    out: Path, grid: FakePlan
) -> None:
    assert len({style.color for style in row_styles(build_table(grid, out))}) == 4
    styles = row_styles(build_table(many_plan(), out))
    assert len({style.color for style in styles}) == 4
    assert len({(style.color, style.marker) for style in styles}) == 20


def test_a_network_that_stands_for_the_papers_is_named_apart_from_it(out: Path, grid: FakePlan) -> None:
    levels = {"Swin-Tiny": "focal_swin_tiny", "Focal-Tiny": "focal_tiny"}
    backbone = tuple(Level(label, {"backbone": name}) for label, name in levels.items())
    runs = tuple(
        replace(run, stands_for=levels[run.cell.labels["backbone"]], backbone="focal_micro")
        for run in grid.runs
    )
    found = plots_of(replace(grid, runs=runs, sweep=replace(grid.sweep, factors={"backbone": backbone})), out)
    measured, published = found["tradeoff-top1"].draw().axes
    assert all("(" in text.get_text() for text in measured.texts)
    assert not any("(" in text.get_text() for text in published.texts)
    assert any("Tiny (micro) / 7" in text for text in words_of(found["bars-top1"].draw()))
