"""Fixtures for reports; what they are made of is in support/finished_runs.py."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.finished_runs import FakePlan, corrupt, fail, finish, make_plan, run_id, start

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture
def mixed(out: Path) -> FakePlan:
    """Table 8 with all that can happen: full, partial, failed, missing and corrupt cells, odd labels."""
    plan = make_plan(
        {"backbone": ["Swin-Tiny", "Focal-Tiny", "my_<b>*|[red]"], "window_size": ["7", "14"]},
        paper="table8_window_size",
        claim="a larger window helps both, and Focal-Tiny at 7 already beats Swin-Tiny at 14",
    )
    for cell, top1s in {0: (84.25, 85.5, 83.0), 1: (86.0, 85.0), 2: (88.5,)}.items():
        for seed, top1 in enumerate(top1s):
            finish(out, run_id(cell, seed), metrics={"top1": top1, "top5": 99.0, "loss": 0.5})
    start(out, run_id(1, 2))
    fail(out, run_id(2, 1))
    corrupt(out, run_id(2, 2))
    for seed in range(3):
        fail(out, run_id(3, seed), reason="out of memory\nat stage 1", last="Killed")
    corrupt(out, run_id(4, 0))
    return plan


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare with a file under golden/; FOCAL_LAB_UPDATE_GOLDEN=1 writes it first, to be read as a diff."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("FOCAL_LAB_UPDATE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
