"""The time left of a sweep, against simulated sweeps."""

import time

import pytest
from support.simulated_sweep import Played, Sweep, invented, left_after

from focal_lab.sweep.estimate.eta import Expected, Job, TimeLeft, finish_time

WITHIN = 0.25


def equal(names: str, weight: float = 1.0) -> list[Expected]:
    return [Expected(name, name, "x", weight) for name in names]


def error(sweep: Sweep) -> float:
    estimate, truth = left_after(sweep, 1 / 3)
    assert estimate is not None
    return (estimate - truth) / truth


def test_each_worker_takes_the_next_run() -> None:
    jobs = [Job("a", 5.0), Job("b", 3.0), Job("c", 4.0), Job("d", 1.0)]
    assert finish_time(jobs, 1) == 13.0
    assert finish_time(jobs, 2) == 7.0
    assert finish_time(jobs, 9) == 5.0
    assert finish_time([], 2) == 0.0


def test_what_waits_for_a_parent_is_passed_by_those_behind_it() -> None:
    jobs = [Job("parent", 5.0), Job("child", 5.0, "parent"), Job("other", 4.0)]
    assert finish_time(jobs, 2) == 10.0
    assert finish_time(jobs, 1) == 14.0


def test_a_parent_that_is_done_is_not_waited_for() -> None:
    assert finish_time([Job("child", 5.0, "done long ago")], 1) == 5.0


def test_ten_thousand_runs_are_scheduled_in_a_moment() -> None:
    jobs = [Job(str(i), 1.0 + i % 7, str(i - 1) if i % 2 else None) for i in range(10_000)]
    start = time.process_time()
    assert finish_time(jobs, 4) >= sum(job.seconds for job in jobs) / 4
    assert time.process_time() - start < 2


def test_nothing_is_promised_before_anything_is_done() -> None:
    left = TimeLeft(equal("ab"), workers=1)
    assert left.left(0.0) is None
    left.start("a", 0.0)
    assert left.left(10.0) is None


def test_expected_seconds_are_promised_from_the_start() -> None:
    left = TimeLeft(equal("abc", 60.0), workers=1, in_seconds=True)
    assert left.left(0.0) == pytest.approx(180.0)
    assert TimeLeft(equal("abc", 60.0), workers=2, in_seconds=True).left(0.0) == pytest.approx(120.0)


def test_equal_runs_take_as_long_as_the_first_did() -> None:
    left = TimeLeft(equal("abcd"), workers=1)
    left.start("a", 0.0)
    left.end("a", 60.0)
    assert left.left(60.0) == pytest.approx(180.0)


def test_the_start_of_a_run_is_no_slow_progress() -> None:
    left = TimeLeft(equal("ab"), workers=1)
    left.start("a", 0.0)
    left.advance("a", 0.0, 10.0)
    left.advance("a", 0.5, 40.0)
    assert left.left(40.0) == pytest.approx(30.0 + 10.0 + 60.0)


def test_what_a_resumed_run_had_done_before_is_no_fast_progress() -> None:
    left = TimeLeft(equal("ab"), workers=1)
    left.start("a", 0.0)
    left.advance("a", 0.8, 0.0)
    left.advance("a", 0.9, 10.0)
    assert left.left(10.0) == pytest.approx(10.0 + 100.0)
    left.end("a", 20.0)
    assert left.left(20.0) == pytest.approx(100.0)


def test_dear_runs_take_longer_in_proportion_to_their_cost() -> None:
    left = TimeLeft([Expected("cheap", "1", "x", 1.0), Expected("dear", "2", "x", 3.0)], workers=1)
    left.start("cheap", 0.0)
    left.end("cheap", 20.0)
    assert left.left(20.0) == pytest.approx(60.0)


def test_workers_share_what_is_left_but_not_the_last_run() -> None:
    left = TimeLeft(equal("abcde"), workers=2)
    left.start("a", 0.0)
    left.end("a", 60.0)
    assert left.left(60.0) == pytest.approx(120.0)
    for run in "bcd":
        left.start(run, 60.0)
        left.end(run, 120.0)
    assert left.left(120.0) == pytest.approx(60.0)


def test_tasks_whose_costs_do_not_compare_have_rates_of_their_own() -> None:
    costs = {"a": ("x", 1.0), "b": ("x", 1.0), "c": ("y", 900.0), "d": ("y", 900.0)}
    left = TimeLeft([Expected(name, name, *cost) for name, cost in costs.items()], 1)
    left.start("a", 0.0)
    left.end("a", 60.0)
    assert left.left(60.0) is None
    left.start("c", 60.0)
    left.advance("c", 0.0, 60.0)
    left.advance("c", 0.5, 80.0)
    assert left.left(80.0) == pytest.approx(60.0 + 20.0 + 40.0)


def test_reused_runs_take_no_time() -> None:
    left = TimeLeft(equal("ab"), workers=1)
    left.end("b", 0.0)
    left.start("a", 0.0)
    left.end("a", 60.0)
    assert left.left(60.0) == 0.0


def test_other_commands_share_what_is_left() -> None:
    left = TimeLeft(equal("abcdefgh", 60.0), workers=1, in_seconds=True)
    left.start("a", 0.0)
    left.end("b", 60.0)
    left.end("a", 60.0)
    left.start("c", 60.0)
    left.helpers = 5
    assert left.left(60.0) == pytest.approx(60.0, rel=0.2)


def test_runs_still_to_come_take_as_long_as_those_seen() -> None:
    left = TimeLeft([], workers=1)
    left.unknown = 3
    assert left.left(0.0) is None
    left.add(Expected("a", "a", "x", 1.0))
    left.start("a", 0.0)
    left.end("a", 60.0)
    assert left.left(60.0) == pytest.approx(180.0)


def test_failed_runs_say_nothing_about_the_others() -> None:
    left = TimeLeft(equal("abc", 60.0), workers=1, in_seconds=True)
    left.start("a", 0.0)
    left.end("a", 1.0, whole=False)
    assert left.left(1.0) == pytest.approx(120.0)


@pytest.mark.parametrize(("weight", "step"), [(1.0, 1.0), (0.0, 0.5)])
def test_runs_of_one_step_or_without_weight_say_nothing(weight: float, step: float) -> None:
    left = TimeLeft(equal("ab", weight), workers=1)
    left.start("a", 0.0)
    left.advance("a", step, 5.0)
    assert left.left(5.0) is None
    left.end("a", 6.0)
    assert left.left(6.0) is None


@pytest.mark.parametrize("workers", [1, 4])
def test_after_a_third_of_a_sweep_the_time_left_is_within_a_quarter_of_the_truth(workers: int) -> None:
    sweeps = [invented(seed, workers) for seed in range(300)]
    errors = [abs(error(sweep)) for sweep in sweeps if is_known(sweep)]
    assert len(errors) > 280
    # crashes, and what is left to the last worker alone, are luck: one sweep in thirty may be worse
    assert sum(one > WITHIN for one in errors) <= 0.03 * len(errors)
    assert sum(errors) / len(errors) < 0.1


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("in_seconds", [True, False])
def test_ten_runs_of_cells_that_differ_fivefold(workers: int, in_seconds: bool) -> None:
    costs = {"cheap": 20.0, "fair": 40.0, "mean": 60.0, "high": 80.0, "dear": 100.0}
    scale = 1.3 if in_seconds else 1e-3
    runs = [
        Played(Expected(f"{cell} {seed}", cell, "x", cost * scale), 3.0, cost, 0.05 * cost)
        for seed in (0, 1)
        for cell, cost in costs.items()
    ]
    assert abs(error(Sweep(runs, workers, in_seconds))) < WITHIN


def is_known(sweep: Sweep) -> bool:
    """Whether there is an answer: without expected seconds, none before each task has been seen."""
    return left_after(sweep, 1 / 3)[0] is not None
