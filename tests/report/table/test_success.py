"""Success rates beside the mean, for outcomes that are all or nothing."""

from dataclasses import replace
from pathlib import Path

from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.formats.grid import table_grid
from focal_lab.report.table.build import build_table

TOP1S = {0: (97.0, 52.0, 96.0, 95.0, 49.0), 1: (97.0, 95.0, 96.0, 98.0, 96.5)}


def finished_sweep(out: Path, success: dict[str, float]) -> FakePlan:
    plan = make_plan({"pool_init": ["released", "mean"]}, columns=("params", "top1", "loss"), seeds=range(5))
    for cell, values in TOP1S.items():
        for seed, top1 in enumerate(values):
            finish(out, run_id(cell, seed), metrics={"top1": top1, "loss": 1 - top1 / 100})
    return replace(plan, sweep=replace(plan.sweep, success=success))


def test_the_seeds_that_reach_the_threshold_are_counted(out: Path) -> None:
    table = build_table(finished_sweep(out, {"top1": 95}), out)
    assert [row.entries["top1"].successes for row in table.rows] == [3, 5]
    strips = {strip.heading: strip.cells for strip in table_grid(table)}
    assert strips[">= 95"] == ("3/5 (23 to 88 %)", "5/5 (57 to 100 %)")
    assert any("Top-1 (%) 95: seeds that reach it" in note for note in table.notes)


def test_a_loss_succeeds_below_its_threshold(out: Path) -> None:
    table = build_table(finished_sweep(out, {"loss": 0.051}), out)
    assert [row.entries["loss"].successes for row in table.rows] == [3, 5]
    assert "<= 0.051" in [strip.heading for strip in table_grid(table)]


def test_without_a_threshold_there_is_no_rate(out: Path) -> None:
    table = build_table(finished_sweep(out, {}), out)
    assert [row.entries["top1"].successes for row in table.rows] == [None, None]
    assert not any("=" in strip.heading for strip in table_grid(table))


def test_a_cell_without_results_has_a_dash(out: Path) -> None:
    plan = finished_sweep(out, {"top1": 95})
    table = build_table(plan, out / "empty")
    strips = {strip.heading: strip.cells for strip in table_grid(table)}
    assert set(strips[">= 95"]) == {"–"}  # noqa: RUF001
