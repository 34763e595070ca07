from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.table.build import build_table
from focal_lab.report.table.notes import shortcomings


def finished_sweep(out: Path, **changes: dict[str, Any]) -> FakePlan:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1", "top5"), seeds=(0, 1))
    for cell in (0, 1):
        for seed in (0, 1):
            finish(out, run_id(cell, seed), **changes.get(f"run_{cell}{seed}", {}))
    return plan


def test_a_table_that_is_whole_has_no_shortcoming(out: Path) -> None:
    assert shortcomings(build_table(finished_sweep(out), out)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"git": {"commit": "fff", "dirty": False}}, "Runs of 2 commits: 0123abc (3) and fff (1)."),
        (
            {"git": {"commit": "0123abc", "dirty": True}},
            "1 of 4 finished runs have uncommitted code.",
        ),
        ({"git": {"commit": None, "dirty": None}}, "Runs of code outside a checkout."),
        ({"versions": {"torch": "2.99"}}, "Runs of 2 versions of torch: 2.14.1 and 2.99."),
        ({"metrics": {"top1": 80.0}}, "14: Top-5 (%) is reported by 1 of 2 runs"),
        (
            {"identity": {"network": {"img_size": [56]}}},
            "Rows have different images (column data): their numbers are not directly comparable.",
        ),
    ],
)
def test_what_keeps_a_table_from_being_published(change: dict[str, Any], expected: str, out: Path) -> None:
    found = shortcomings(build_table(finished_sweep(out, run_11=change), out))
    assert expected in found


def test_missing_failed_and_corrupt_runs_are_listed_by_cell(out: Path, mixed: FakePlan) -> None:
    found = shortcomings(build_table(mixed, out))
    assert "Swin-Tiny / 14: 1 missing" in found
    assert "Focal-Tiny / 7: 1 failed, 1 corrupt" in found
    assert not any(line.startswith("Swin-Tiny / 7") for line in found)


def test_a_run_that_has_only_begun_is_missing(out: Path) -> None:
    plan = finished_sweep(out)
    (out / run_id(1, 1) / "result.json").unlink()
    (out / run_id(1, 1) / "config.yaml").touch()
    assert shortcomings(build_table(plan, out)) == ["14: 1 missing"]
