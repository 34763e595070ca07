import json
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

import numpy as np
import pytest
from support.finished_runs import FakePlan, config, finish, make_plan, run_id

from focal_lab.report.formats.grid import table_sections
from focal_lab.report.formats.render import table_json, table_latex, table_markdown, table_text
from focal_lab.report.html.page import page
from focal_lab.report.statistics.variance import variance_components
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Source
from focal_lab.training.predictions_file import write_predictions

SEEDS = {"init_seed": ["0", "1", "2"], "order_seed": ["5", "6"]}
IMAGES = 500
DRAW = np.random.default_rng(11)


def train(plan: FakePlan, out: Path, *, predictions: bool = True) -> dict[tuple[str, int], np.ndarray]:
    """Finish all runs; run ID -> whether each image is right."""
    hard = DRAW.normal(size=IMAGES)
    levels = {level for cell in plan.cells for level in cell.labels.items()}
    pull = {level: DRAW.normal(size=IMAGES) / 3 for level in sorted(levels)}
    found = {}
    for run in plan.runs:
        noise = sum(pull[item] for item in run.cell.labels.items()) + DRAW.normal(size=IMAGES) / 4
        right = 1 + hard + noise > 0
        finish(out, run.id, seed=run.seed, metrics={"top1": 100 * float(right.mean())})
        if predictions:
            arrays = {"label": np.zeros(IMAGES, np.int64), "prediction": 1 - right.astype(np.int64)}
            write_predictions(out / run.id, arrays)
        found[run.id] = right
    return found


def by_name(sources: tuple[Source, ...]) -> dict[str, Source]:
    return {source.source: source for source in sources}


def test_a_sweep_over_seeds_has_the_components_of_its_table(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    right = train(plan, out)
    table = build_table(plan, out)
    values = [(run.cell.labels, 100 * float(right[run.id].mean())) for run in plan.runs]
    expected = variance_components(values)
    found = by_name(table.sources)
    assert list(found) == ["init_seed", "order_seed", "rest", "test images"]
    for component, source in zip(expected.components, table.sources, strict=False):
        assert source.sd == pytest.approx(sqrt(component.variance))
        assert (source.sd_low, source.sd_high) == pytest.approx((sqrt(component.low), sqrt(component.high)))
        assert source.percent == pytest.approx(100 * (component.share or 0))
        assert (source.runs, source.labels) == (6, {})
    assert sum(source.percent or 0 for source in table.sources) == pytest.approx(100)


def test_test_images_have_the_variance_that_changes_all_runs_alike(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    right = np.array(list(train(plan, out).values())) * 100.0
    of_image = [fmean(column) for column in right.T.tolist()]
    of_run = [fmean(row) for row in right.tolist()]
    rest = sum(
        (right[r, i] - of_run[r] - of_image[i] + fmean(of_run)) ** 2
        for r, i in product(range(6), range(IMAGES))
    ) / (5 * (IMAGES - 1))
    expected = (6 * variance(of_image) - rest) / 6 / IMAGES
    found = by_name(build_table(plan, out).sources)["test images"]
    assert found.sd == pytest.approx(sqrt(expected), rel=1e-4)
    assert found.sd_low < found.sd < found.sd_high < 1.2 * found.sd_low
    assert found.percent is None


def test_without_predictions_the_test_images_are_left_out(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    train(plan, out, predictions=False)
    table = build_table(plan, out)
    assert list(by_name(table.sources)) == ["init_seed", "order_seed", "rest"]
    assert "Test images:" not in " ".join(table.notes)


def test_rows_that_differ_in_a_seed_are_not_compared(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    train(plan, out)
    table = build_table(plan, out)
    assert all(row.baseline is None for row in table.rows)
    assert (table.effects, table.comparisons) == ((), 0)
    assert [section.name for section in table_sections(table)] == ["sources-top1"]
    assert "One seed per cell" not in " ".join(table.notes)


def test_each_cell_of_other_factors_has_its_own_sources_and_equal_seeds_are_compared(out: Path) -> None:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], **SEEDS}
    plan = make_plan(factors, columns=("top1",), seeds=(0,), baseline={"backbone": "Swin-Tiny"})
    train(plan, out)
    table = build_table(plan, out)
    assert [row.baseline for row in table.rows] == [None] * 6 + list(range(6))
    labels = [source.labels for source in table.sources]
    assert labels == [{"backbone": "Swin-Tiny"}] * 4 + [{"backbone": "Focal-Tiny"}] * 4
    (section,) = [section for section in table_sections(table) if section.name == "sources-top1"]
    assert section.strips[0].cells == ("Swin-Tiny",) * 4 + ("Focal-Tiny",) * 4


def test_several_seeds_of_the_run_are_a_source(out: Path) -> None:
    plan = make_plan({"init_seed": ["0", "1", "2"]}, columns=("top1",), seeds=range(4))
    train(plan, out)
    sources = build_table(plan, out).sources
    assert list(by_name(sources)) == ["init_seed", "seed", "rest", "test images"]
    assert {source.runs for source in sources} == {12}


def test_before_all_runs_are_finished_a_note_says_how_many_are_missing(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    for number in range(4):
        finish(out, run_id(number, 0), metrics={"top1": 80.0 + number})
    table = build_table(plan, out)
    assert table.sources == ()
    assert "Sources of variance: shown when a cell has all its runs; 2 runs to go." in table.notes


def test_one_seed_factor_with_one_seed_of_the_run_is_no_sweep_over_seeds(out: Path) -> None:
    plan = make_plan({"init_seed": ["0", "1"], "window_size": ["7", "14"]}, columns=("top1",), seeds=(0,))
    train(plan, out)
    table = build_table(plan, out)
    assert table.sources == ()
    assert not any("Sources of variance" in note for note in table.notes)


def test_equal_runs_have_no_shares(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    for number in range(6):
        finish(out, run_id(number, 0), metrics={"top1": 80.0})
    table = build_table(plan, out)
    assert [(source.sd, source.percent) for source in table.sources] == [(0.0, None)] * 3
    assert "0.00 (0.00 to 0.00)" in table_text(table)


def test_seeds_of_data_and_order_do_not_make_other_data(out: Path) -> None:
    plan = make_plan({"order_seed": ["0", "1"], "data_seed": ["0", "1"]}, columns=("top1",), seeds=(0,))
    for number, cell in enumerate(plan.cells):
        known = config({"window_size": 7})
        known["data"] = {"class_path": "Digits", "init_args": {k: int(v) for k, v in cell.labels.items()}}
        finish(out, run_id(number, 0), config=known)
    assert {row.data for row in build_table(plan, out).rows} == {""}


def test_all_formats_show_the_sources(out: Path) -> None:
    plan = make_plan(SEEDS, columns=("top1",), seeds=(0,))
    train(plan, out)
    table = build_table(plan, out)
    sd = f"{table.sources[0].sd:.2f} ("
    for shown in (table_text(table), table_markdown(table), table_latex(table), page(table, plan, out)):
        assert "Sources of variance of" in shown
        assert sd in shown
        assert "order_seed" in shown.replace("\\", "")
    assert json.loads(table_json(table))["sources"] == table.frame.attrs["sources"]
