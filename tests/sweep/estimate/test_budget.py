"""Whether a plan is within its budget."""

import pytest
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.estimate.budget import check_budget, wall_seconds
from focal_lab.sweep.plan.plan import make_plan

pytestmark = pytest.mark.usefixtures("project")


def test_a_plan_above_the_budget_is_refused_with_the_ways_out() -> None:
    runs = make_plan(write_sweep(seeds=6)).distinct_runs
    seconds = {run.id: 8.5 * 3600 for run in runs}
    check_budget(51 * 3600, runs, seconds, 2)
    with pytest.raises(UserError) as caught:
        check_budget(40 * 3600, runs, seconds, 2)
    assert str(caught.value) == (
        "--budget: 12 runs need 51 h 00 min on 2 workers, more than 40 h 00 min "
        "(fewer seeds, more workers, or a larger budget)"
    )


def test_what_nobody_knows_is_within_no_budget() -> None:
    runs = make_plan(write_sweep()).distinct_runs
    with pytest.raises(UserError, match=r"^--budget: the time of 3 of 4 runs is not known, 14 among them"):
        check_budget(1e9, runs, {runs[0].id: 1.0}, 1)


def test_children_wait_for_their_parents() -> None:
    runs = make_plan(write_sweep(tasks=["classification", "detection"], seeds=1)).distinct_runs
    assert wall_seconds(runs, {run.id: 10.0 for run in runs}, 4) == 20.0
    assert wall_seconds(runs, {run.id: 10.0 for run in runs}, 1) == 40.0
    check_budget(1.0, [], {}, 2)
