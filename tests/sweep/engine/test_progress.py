"""What a person sees while a sweep trains."""

import io

import pytest
from rich.console import Console
from support.small_project import write_sweep

from focal_lab.sweep.engine.progress import SweepView, expected_times
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.worker.request import Cost

pytestmark = pytest.mark.usefixtures("project")


def view_of(plan: Plan, workers: int = 1) -> tuple[SweepView, io.StringIO]:
    """A view that writes a log, and what it writes."""
    stream = io.StringIO()
    costs = {run.id: Cost(1, 1.0, (28, 28), "options") for run in plan.distinct_runs}
    return SweepView(plan.distinct_runs, costs, workers, console=Console(file=stream, width=40)), stream


def test_every_end_is_one_line_of_a_log() -> None:
    plan = make_plan(write_sweep())
    first, second, *_ = plan.distinct_runs
    view, stream = view_of(plan)
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


def test_a_crashed_run_is_one_line_and_not_done() -> None:
    plan = make_plan(write_sweep())
    view, stream = view_of(plan)
    run = plan.distinct_runs[0]
    view.started(run)
    view.progressed(run, {"step": 5, "total": 10})
    view.retried(run, "its process was killed (signal 9)", 2)
    view.started(run)
    view.progressed(run, {"step": 5, "total": 10})
    view.ended(run, State.FINISHED, None)
    died, ended = stream.getvalue().splitlines()
    assert died.startswith("  7, seed 0: its process was killed (signal 9); resumes from its last checkpoint")
    assert "attempt 2" in died
    assert ended.startswith("[1/4] 7, seed 0: finished")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "stopping"),
        (1, "stopping: waiting for 1 run to write its checkpoint; Ctrl-C again exits at once"),
        (3, "stopping: waiting for 3 runs to write checkpoints; Ctrl-C again exits at once"),
    ],
)
def test_a_stopped_sweep_prints_what_it_waits_for(count: int, words: str) -> None:
    view, stream = view_of(make_plan(write_sweep()))
    view.stopping(count)
    assert stream.getvalue().splitlines() == [words]


def test_runs_that_join_the_study_later_are_counted() -> None:
    plan = make_plan(write_sweep())
    stream = io.StringIO()
    view = SweepView(plan.distinct_runs[:2], {}, 2, console=Console(file=stream, width=40))
    for run in plan.distinct_runs[:3]:
        view.started(run)
    view.ended(plan.distinct_runs[2], State.FINISHED, None)
    assert stream.getvalue().startswith("[1/3] 7, seed 1: finished")


def test_all_runs_in_progress_are_drawn_on_a_terminal() -> None:
    plan = make_plan(write_sweep())
    stream = io.StringIO()
    view = SweepView(plan.distinct_runs, {}, 2, console=Console(file=stream, width=100, force_terminal=True))
    for run in plan.distinct_runs[:2]:
        view.started(run)
        view.progressed(run, {"step": 5, "total": 10, "loss": 0.5})
    view.tick()
    view.close()
    drawn = stream.getvalue()
    assert "7, seed 0" in drawn
    assert "14, seed 0" in drawn
    assert "0 of 4 runs" in drawn


def test_runs_are_weighed_by_seconds_where_all_are_known_and_by_their_work_otherwise() -> None:
    runs = make_plan(write_sweep()).distinct_runs
    costs = {
        run.id: Cost(1, gmacs, (28, 28), "options")
        for run, gmacs in zip(runs, (1.0, 2.0, 1.0, 2.0), strict=True)
    }
    expected, in_seconds = expected_times(runs, costs, {run.id: 30.0 for run in runs})
    assert in_seconds
    assert [run.weight for run in expected] == [30.0] * 4
    expected, in_seconds = expected_times(runs, costs, {runs[0].id: 30.0})
    assert not in_seconds
    assert [run.weight for run in expected] == [2.0, 4.0, 2.0, 4.0]  # two epochs
