"""Runs that a search stopped early: no results, and no failures either."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.table.build import build_table
from focal_lab.sweep.run_folder.result import Failure, write_record

WHY = "stopped early at epoch 3, validation 50.0: others were better by then"


@pytest.fixture
def halved(out: Path) -> FakePlan:
    """Two cells; of the second one two of three runs were stopped early, of the third one all."""
    plan = make_plan({"window_size": ["7", "14", "21"]}, columns=("top1",))
    for cell, seed in ((0, 0), (0, 1), (0, 2), (1, 0)):
        finish(out, run_id(cell, seed))
    for cell, seed in ((1, 1), (1, 2), (2, 0), (2, 1), (2, 2)):
        run = run_id(cell, seed)
        write_record(out / run, Failure(run, "classification", seed, WHY, [], 1, "2026-01-02", pruned=True))
    return plan


def test_a_cell_whose_runs_were_stopped_early_says_so_instead_of_a_value(out: Path, halved: FakePlan) -> None:
    table = build_table(halved, out)
    assert [row.entries["top1"].status for row in table.rows] == ["measured", "measured", "pruned"]
    assert [row.states["pruned"] for row in table.rows] == [0, 2, 3]
    assert [row.states["failed"] for row in table.rows] == [0, 0, 0]
    assert table.rows[1].entries["top1"].n == 1


def test_a_note_says_that_runs_without_a_test_split_report_their_last_epoch(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1",), seeds=(0,))
    finish(out, run_id(0, 0), evaluated={"checkpoint": "best", "split": "test"})
    assert not any("last epoch" in note for note in build_table(plan, out).notes)
    finish(out, run_id(1, 0), evaluated={"checkpoint": "last", "split": "val"})
    notes = build_table(plan, out).notes
    assert any(note.startswith("classification: the last epoch on the validation split") for note in notes)


def test_a_search_leaves_them_at_that(out: Path, halved: FakePlan) -> None:
    space: Any = SimpleNamespace(search=SimpleNamespace(objectives={"top1": "maximize"}))
    notes = build_table(replace(halved, space=space, front=1), out).notes
    assert "5 runs were stopped early: others were better." in notes
    assert not any("trains the rest" in note for note in notes)


def test_a_design_that_shares_them_says_that_it_trains_them(out: Path, halved: FakePlan) -> None:
    notes = build_table(halved, out).notes
    sentence = "4 of 9 runs finished, 5 pruned: focal-lab sweep sweeps/window_size.yaml trains the rest."
    assert sentence in notes
    assert not any("failed" in note or "others were better" in note for note in notes)
