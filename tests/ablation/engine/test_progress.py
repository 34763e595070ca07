"""What a person is told while a sweep trains."""

import io

import pytest
from rich.console import Console
from small_project import write_sweep

from focal_lab.ablation.costs import Cost
from focal_lab.ablation.engine.progress import Estimate, SweepView
from focal_lab.ablation.outcomes import State
from focal_lab.ablation.plan import make_plan


def test_nothing_is_promised_before_anything_is_done() -> None:
    estimate = Estimate({"a": 1.0, "b": 1.0}, workers=1)
    assert estimate.left(0.0) is None
    estimate.start("a", 0.0)
    assert estimate.left(10.0) is None


def test_equal_runs_take_as_long_as_the_first_did() -> None:
    estimate = Estimate(dict.fromkeys("abcd", 1.0), workers=1)
    estimate.start("a", 0.0)
    estimate.end("a", 60.0)
    assert estimate.left(60.0) == pytest.approx(180.0)


def test_a_run_in_progress_counts_by_its_steps() -> None:
    estimate = Estimate({"a": 1.0, "b": 1.0}, workers=1)
    estimate.start("a", 0.0)
    estimate.advance("a", 0.5)
    assert estimate.left(30.0) == pytest.approx(90.0)


def test_dear_runs_take_longer_in_proportion_to_their_cost() -> None:
    estimate = Estimate({"cheap": 1.0, "dear": 3.0}, workers=1)
    estimate.start("cheap", 0.0)
    estimate.end("cheap", 20.0)
    assert estimate.left(20.0) == pytest.approx(60.0)


def test_workers_share_what_is_left_but_not_the_last_run() -> None:
    estimate = Estimate(dict.fromkeys("abcde", 1.0), workers=2)
    estimate.start("a", 0.0)
    estimate.end("a", 60.0)
    assert estimate.left(60.0) == pytest.approx(120.0)
    for run in "bcd":
        estimate.start(run, 60.0)
        estimate.end(run, 120.0)
    assert estimate.left(120.0) == pytest.approx(60.0)


def test_tasks_have_rates_of_their_own() -> None:
    estimate = Estimate(
        {"a": 1.0, "b": 1.0, "c": 900.0, "d": 900.0}, 1, {"a": "x", "b": "x", "c": "y", "d": "y"}
    )
    estimate.start("a", 0.0)
    estimate.end("a", 60.0)
    assert estimate.left(60.0) is None
    estimate.start("c", 60.0)
    estimate.advance("c", 0.5)
    assert estimate.left(80.0) == pytest.approx(60.0 + 20.0 + 40.0)


def test_reused_runs_take_no_time() -> None:
    estimate = Estimate({"a": 1.0, "b": 1.0}, workers=1)
    estimate.skip("b")
    estimate.start("a", 0.0)
    estimate.end("a", 60.0)
    assert estimate.left(60.0) == 0.0


@pytest.mark.usefixtures("project")
def test_every_end_is_one_line_of_a_log() -> None:
    plan = make_plan(write_sweep())
    first, second, *_ = plan.distinct_runs
    stream = io.StringIO()
    view = SweepView(
        plan, {run.id: Cost(1, 1.0) for run in plan.distinct_runs}, 1, Console(file=stream, width=40)
    )
    view.reused(first)
    view.started(second)
    view.progressed(second, {"step": 5, "total": 10, "loss": 1.0, "metric": 55.5})
    view.ended(second, State.FAILED, "the loss is nan at step 7; lower model.lr")
    view.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/")
    assert first.id in lines[0]
    assert "failed: the loss is nan at step 7; lower model.lr" in lines[1]
    assert "\x1b" not in stream.getvalue()
