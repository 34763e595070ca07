from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.formats.grid import table_sections
from focal_lab.report.formats.render import flat_table, table_text
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Comparison, Table

TOP1S = {0: (80.0, 81.5, 80.5), 1: (84.0, 86.5, 84.5), 2: (80.5, 81.0, 80.0), 3: (75.0, 77.5, 75.5)}


def finished_sweep(out: Path, top1s: dict[int, tuple[float, ...]] = TOP1S, **asked: Any) -> FakePlan:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
    plan = make_plan(factors, paper="table8_window_size", columns=("params", "top1", "loss"), **asked)
    for cell, values in top1s.items():
        for seed, top1 in enumerate(values):
            finish(out, run_id(cell, seed), metrics={"top1": top1, "loss": 3 - top1 / 50})
    return plan


def compared(table: Table, key: str = "top1") -> list[Comparison | None]:
    return [row.entries[key].compared for row in table.rows]


def holm(p_values: list[float]) -> list[float]:
    """The textbook's, written plainly."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    expected = [0.0] * len(p_values)
    for rank, index in enumerate(order):
        floor = max((expected[other] for other in order[:rank]), default=0.0)
        expected[index] = max(floor, min(1.0, p_values[index] * (len(p_values) - rank)))
    return expected


def test_every_row_is_tested_against_the_first_with_holms_correction_over_all_metrics(out: Path) -> None:
    table = build_table(finished_sweep(out), out)
    first, *others = compared(table)
    assert first is None
    losses = {cell: [3 - top1 / 50 for top1 in values] for cell, values in TOP1S.items()}
    p_values = [stats.ttest_rel(of[cell], of[0]).pvalue for of in (TOP1S, losses) for cell in (1, 2, 3)]
    found = [one for one in (*others, *compared(table, "loss")) if one]
    assert [one.p for one in found] == pytest.approx(p_values)
    assert [one.p_holm for one in found] == pytest.approx(holm(p_values))
    assert table.comparisons == 6
    assert [one.verdict for one in others if one] == ["better", "inconclusive", "worse"]
    assert [one.published for one in others if one] == pytest.approx([0.9, 1.0, 1.1])


def test_parts_of_the_claim_count_as_comparisons_unless_a_row_asks_the_same(out: Path) -> None:
    same = "Swin-Tiny/14 > Swin-Tiny/7"
    other = "Focal-Tiny/14 > Focal-Tiny/7"
    for expect, count in (([], 6), ([same], 6), ([other], 7), ([same, other, f"loss: {other}"], 8)):
        table = build_table(finished_sweep(out, expect=expect), out)
        assert table.comparisons == count
        worse = compared(table)[3]  # one of the two least p-values
        assert worse is not None
        assert worse.p is not None
        assert worse.p_holm == pytest.approx(worse.p * count)


def test_a_lower_loss_is_better(out: Path) -> None:
    verdicts = [found.verdict for found in compared(build_table(finished_sweep(out), out), "loss") if found]
    assert verdicts == ["better", "inconclusive", "worse"]


def test_rows_within_the_margin_are_equivalent_and_the_margin_is_the_sweeps(out: Path) -> None:
    top1s = {0: (80.0, 81.5, 80.5), 1: (80.1, 81.45, 80.5)}
    for margin, verdict in (
        (None, "equivalent within 0.5"),
        (0.1, "inconclusive"),
        (2, "equivalent within 2"),
    ):
        margins = {} if margin is None else {"top1": float(margin)}
        table = build_table(finished_sweep(out, top1s, margins=margins), out)
        found = compared(table)[1]
        assert found is not None
        assert found.verdict == verdict
        assert found.margin == (margin or 0.5)


def test_parameters_are_not_tested(out: Path) -> None:
    assert compared(build_table(finished_sweep(out), out), "params") == [None] * 4


def test_a_baseline_may_be_one_level(out: Path) -> None:
    table = build_table(finished_sweep(out, baseline={"window_size": "7"}), out)
    assert [row.baseline for row in table.rows] == [None, 0, None, 2]
    second = table.rows[3].entries["top1"].compared
    assert second is not None
    assert second.difference == pytest.approx(-4.5)
    section = table_sections(table)[0]
    assert [strip.heading for strip in section.strips][2] == "baseline"


def test_a_baseline_that_is_no_row_compares_nothing(out: Path) -> None:
    table = build_table(finished_sweep(out, baseline={"window_size": "28"}), out)
    assert compared(table) == [None] * 4
    assert [section.name for section in table_sections(table)] == ["effects-top1"]


def test_two_seeds_are_too_few_for_a_verdict_and_one_for_a_p_value(out: Path) -> None:
    table = build_table(finished_sweep(out, {0: (80.0, 81.0, 82.0), 1: (84.0, 85.5), 2: (84.0,)}), out)
    _, two, one, none = compared(table)
    assert two is not None
    assert one is not None
    assert none is not None
    assert (two.n, two.p_holm, two.verdict) == (2, None, "too few seeds")
    assert two.p is not None
    assert (one.n, one.p, one.difference, one.verdict) == (1, None, 4.0, "too few seeds")
    assert (none.n, none.difference) == (0, None)
    assert any("fewer than 3" in note for note in table.notes)


def test_cells_that_share_runs_are_one_comparison(out: Path) -> None:
    plan = finished_sweep(out)
    shared = [replace(run, id=run_id(1, run.seed)) if run.cell is plan.cells[3] else run for run in plan.runs]
    table = build_table(replace(plan, runs=tuple(shared)), out)
    second, fourth = compared(table)[1], compared(table)[3]
    assert second is not None
    assert fourth is not None
    assert (second.p_holm, second.verdict) == (fourth.p_holm, fourth.verdict)
    assert second.p is not None
    assert second.p_holm == pytest.approx(4 * second.p)  # two rows, two metrics


def test_a_row_with_the_baselines_own_runs_says_so(out: Path) -> None:
    plan = finished_sweep(out)
    shared = [replace(run, id=run_id(0, run.seed)) if run.cell is plan.cells[1] else run for run in plan.runs]
    found = compared(build_table(replace(plan, runs=tuple(shared)), out))[1]
    assert found is not None
    assert (found.verdict, found.difference) == ("same runs", None)


def test_rows_with_different_images_are_marked_and_not_compared(out: Path) -> None:
    plan = finished_sweep(out)
    for cell in (2, 3):
        for seed in range(3):
            identity = {"network": {"img_size": [56, 56]}}
            finish(out, run_id(cell, seed), metrics={"top1": 80 + seed, "loss": 1}, identity=identity)
    table = build_table(plan, out)
    assert [row.data for row in table.rows] == ["", "", "img_size 56-56", "img_size 56-56"]
    assert [found.verdict for found in compared(table) if found] == ["better", "other data", "other data"]
    assert any(note.startswith("Rows have different images") for note in table.notes)
    assert "img_size 56-56" in table_text(table)


def test_a_baseline_in_the_sweep_file_is_compared_across_images(out: Path) -> None:
    plan = finished_sweep(out, baseline={"backbone": "Swin-Tiny", "window_size": "7"})
    for seed in range(3):
        finish(out, run_id(3, seed), metrics={"top1": 90 + seed}, identity={"network": {"img_size": [56]}})
    found = compared(build_table(plan, out))[3]
    assert found is not None
    assert found.n == 3


def test_the_flat_table_holds_the_comparison(out: Path) -> None:
    flat = flat_table(build_table(finished_sweep(out), out))
    assert pd.isna(flat["top1_verdict"][0])
    assert flat["top1_baseline"][1] == "Swin-Tiny / 7"
    assert flat["top1_delta"][1] == pytest.approx(4.333, abs=1e-3)
    assert flat["top1_diff"][1] == pytest.approx(85 - 82.1)


def test_only_seeds_that_both_rows_have_are_compared(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1",), seeds=(0, 1, 7, 8))
    for cell, values in enumerate(({1: 4.0, 0: 1.0, 8: -100.0}, {0: 3.0, 1: 5.0, 7: 100.0})):
        for seed, top1 in values.items():
            finish(out, run_id(cell, seed), metrics={"top1": top1})
    found = build_table(plan, out).rows[1].entries["top1"].compared
    assert found is not None
    assert (found.n, found.difference) == (2, 1.5)
