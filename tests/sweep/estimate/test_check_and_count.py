"""Checking and counting a plan."""

from typing import Any, cast

import pytest
from support.fake_processes import MACHINE, FakeProcesses
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.estimate.check_and_count import CheckedPlan, check_here, check_plan
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.worker.processes import WarmProcesses

pytestmark = pytest.mark.usefixtures("project")


def check(plan: Plan, processes: FakeProcesses) -> CheckedPlan:
    return check_plan(plan, cast(WarmProcesses, processes))


def many(**keys: Any) -> Plan:
    rates = {f"lr{i}": {"model.lr": 0.1 * (i + 1)} for i in range(30)}
    return make_plan(write_sweep(**{"factors": {"rate": rates, "window_size": [7, 14]}} | keys))


def test_a_worker_asks_whether_each_data_set_is_on_its_machine() -> None:
    plan = make_plan(write_sweep(tasks=["classification", "detection"], seeds=3))
    processes = FakeProcesses()
    assert check_here(plan.runs, cast(WarmProcesses, processes)) == MACHINE
    (order,) = processes.checks
    assert (len(order.configs), order.counted) == (1, frozenset())
    for lacking in (FakeProcesses(absent={0: "/data: does not exist"}), FakeProcesses(wrong={0: "no GPU"})):
        with pytest.raises(UserError, match=r"(/data: does not exist|no GPU), for (7|14)"):
            check_here(plan.runs, cast(WarmProcesses, lacking))


def test_every_run_has_the_cost_of_its_network() -> None:
    plan, processes = make_plan(write_sweep()), FakeProcesses()
    checked = check(plan, processes)
    assert checked.machine == MACHINE
    assert [checked.costs[run.id].params for run in plan.runs] == [1_000_000] * 2 + [1_000_001] * 2


def test_few_configurations_are_all_checked_and_many_are_covered() -> None:
    processes = FakeProcesses()
    check(make_plan(write_sweep()), processes)
    check(many(), processes)
    assert [len(order.configs) for order in processes.checks] == [2, 31]
    assert [len(order.counted) for order in processes.checks] == [2, 2]


def test_what_is_wrong_names_the_cell() -> None:
    with pytest.raises(UserError, match=r"^sweeps/small\.yaml: model\.lr: -1 is not positive, for 14$"):
        check(make_plan(write_sweep()), FakeProcesses({1: "model.lr: -1 is not positive"}))
