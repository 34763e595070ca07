"""When a list of runs is done, and whether that is within a budget."""

import time

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.estimate.makespan import Job, check_budget, finish_time


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


def test_workers_that_are_busy_come_later() -> None:
    jobs = [Job("child", 5.0, "parent"), Job("other", 1.0)]
    assert finish_time(jobs, 2, {"parent": 3.0}) == 8.0


def test_ten_thousand_runs_are_scheduled_in_a_moment() -> None:
    jobs = [Job(str(i), 1.0 + i % 7, str(i - 1) if i % 2 else None) for i in range(10_000)]
    start = time.process_time()
    assert finish_time(jobs, 4) >= sum(job.seconds for job in jobs) / 4
    assert time.process_time() - start < 2


def test_a_plan_above_the_budget_is_refused_with_ways_out() -> None:
    check_budget(51 * 3600, 12, 51 * 3600, 2)
    with pytest.raises(UserError) as caught:
        check_budget(40 * 3600, 12, 51 * 3600, 2)
    assert str(caught.value) == (
        "--budget: 12 runs need 51 h 00 min on 2 workers, more than 40 h 00 min "
        "(fewer seeds, more workers, or a larger budget)"
    )
