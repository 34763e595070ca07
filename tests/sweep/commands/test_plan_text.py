"""How a plan is shown."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from support.fake_processes import FakeProcesses
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.commands.plan_text import plan_json, plan_text
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.estimate.check_and_count import check_plan
from focal_lab.sweep.estimate.run_time import Estimate, Estimates
from focal_lab.sweep.estimate.summary import PlanSummary
from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.worker.processes import WarmProcesses

pytestmark = pytest.mark.usefixtures("project")


def summary_of(
    path: Path, *, seconds: float | None = 85.0, memory: float = 700.0, **states: State
) -> PlanSummary:
    """A plan of which every run takes as long; `states` of some of them."""
    plan = make_plan(path)
    checked = check_plan(plan, cast(WarmProcesses, FakeProcesses()))
    all_states = {run.id: states.get(f"run{i}", State.MISSING) for i, run in enumerate(plan.distinct_runs)}
    found = Estimates()
    if seconds is not None:
        estimate = Estimate(seconds, memory, "measured")
        waiting = [run for run, state in all_states.items() if state is not State.FINISHED]
        found.runs = dict.fromkeys(waiting, estimate)
    return PlanSummary(plan, checked, DeviceSlots(2, 1), found, all_states)


def shown(summary: PlanSummary, width: int | None = None) -> str:
    return plan_text(summary, width)


def test_each_run_has_its_cost_its_time_and_its_state() -> None:
    summary = summary_of(write_sweep(), run0=State.FINISHED, run1=State.FAILED)
    lines = shown(summary).splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("Run "))
    assert lines[heading].split() == (
        ["Run", "window", "size", "Seed", "Params", "(M)", "GMACs", "Memory", "Time", "State"]
    )
    first, second, third = (line.split() for line in lines[heading + 2 : heading + 5])
    assert first[1:] == ["7", "0", "1.000", "0.5000", "–", "–", "reused"]  # noqa: RUF001
    assert second[1:] == [
        "14",
        "0",
        "1.000",
        "0.5000",
        "700",
        "MB",
        "85",
        "s",
        *["failed,", "to", "be", "retried"],
    ]
    assert third[-2:] == ["to", "train"]


def test_what_networks_share_is_said_once_and_what_they_do_not_stage_by_stage() -> None:
    text = shown(summary_of(write_sweep()))
    assert "All: backbone focal_micro, depth 2 2 2 2, map 14 7 4 2, shift 0 0 0 0, levels 2 2 2 2" in text
    assert "7      7 7 4 2   3 0 0 0  178 50 17 5\n14     14 7 4 2  0 0 0 0  205 50 17 5\n" in text
    alone = shown(summary_of(write_sweep(factors={"window_size": [7]})))
    assert "All runs: backbone focal_micro, depth 2 2 2 2" in alone


def test_the_sums_say_how_long_and_with_how_many_workers() -> None:
    reported = shown(summary_of(write_sweep(), run0=State.FINISHED)).splitlines()
    assert reported[-3:] == [
        "4 runs: 1 reused, 3 to train",
        "Training: 4 min 15 s in all; 2 min 50 s, 2 at a time with 1 thread each",
        "Time of 3 runs: from measured steps",
    ]
    unknown = shown(summary_of(write_sweep(), seconds=None))
    assert unknown.splitlines()[-1] == "4 runs: 0 reused, 4 to train"
    assert "Memory" not in unknown


def test_a_time_says_which_finished_runs_it_is_from() -> None:
    summary = summary_of(write_sweep(), run0=State.FINISHED)
    _, second, third, fourth = summary.plan.distinct_runs
    summary.estimates.runs |= {
        second.id: Estimate(85.0, 700.0, "measured"),
        third.id: Estimate(30.0, 700.0, "finished", 2),
        fourth.id: Estimate(30.0, 700.0, "finished", 4),
    }
    assert shown(summary).splitlines()[-2:] == [
        "Time of 2 runs: from 2 to 4 finished runs of the same network",
        "Time of 1 run: from measured steps",
    ]
    reported = plan_json(summary)["runs"]
    assert [(run["estimated_from"], run["finished_runs"]) for run in reported] == (
        [(None, 0), ("measured", 0), ("finished", 2), ("finished", 4)]
    )


def test_more_memory_than_there_is_is_reported() -> None:
    reported = shown(summary_of(write_sweep(), memory=5000.0)).splitlines()[-1]
    assert reported == "Memory: 2 at a time need up to 9.8 GB, this machine has 8000 MB; use fewer --workers"
    assert "Memory: " not in shown(summary_of(write_sweep(), memory=3000.0))


def test_cells_that_come_to_the_same_runs_are_reported() -> None:
    factors = {"net": {"Own": {}, "Seven": {"window_size": 7}}}
    text = shown(summary_of(write_sweep(factors=factors, allow_degenerate=True)))
    assert "- Seven has the same runs as Own: trained once\n" in text
    assert "2 runs: 0 reused, 2 to train; 2 more are the same as one of these" in text


def test_a_factor_that_varies_several_settings_is_named_in_one_line() -> None:
    factors = {
        "net": {"Swin": {"backbone": "swin"}, "Focal": {"backbone": "focal_tiny"}},
        "window_size": [7, 14],
    }
    summary = summary_of(write_sweep(factors=factors))
    (line,) = [line for line in shown(summary).splitlines() if line.startswith("- net: ")]
    assert line.startswith("- net: Swin and Focal differ in several settings: focal_levels (1, 2), ")
    assert line.endswith("downsample (merge, conv); an effect of net is not the effect of one of them")
    (confound,) = json.loads(json.dumps(plan_json(summary)))["confounds"]
    assert (confound["factor"], confound["levels"]) == ("net", ["Swin", "Focal"])
    assert confound["settings"]["downsample"] == ["merge", "conv"]
    assert plan_json(summary_of(write_sweep()))["confounds"] == []


def test_a_factor_that_differs_in_some_stages_only_is_named_with_them() -> None:
    summary = summary_of(write_sweep(factors={"window_size": [7, 14]}))
    assert "- window_size: differs in 1 of 4 stages (stage 1)\n" in shown(summary)
    assert plan_json(summary)["differing_stages"] == {"window_size": [1]}


def test_what_was_not_honoured_is_reported_once_for_all_cells() -> None:
    text = shown(summary_of(write_sweep()))
    assert "- stage 3: window 7 becomes the 4 x 4 map (7)\n" in text
    assert "- stages 1, 2, 3, 4: expansion is off: the window covers the map (14)\n" in text


def test_a_note_says_for_what_size_it_is_where_images_have_another_one() -> None:
    summary = summary_of(write_sweep())
    costs = {name: replace(cost, image_size=(32, 32)) for name, cost in summary.checked.costs.items()}
    text = shown(replace(summary, checked=replace(summary.checked, costs=costs)))
    assert "map 16 8 4 2" in text
    assert "- stage 3: window 7 becomes the 4 x 4 map, as made for 28 x 28 px (7)\n" in text


def test_why_something_was_not_measured_is_reported() -> None:
    summary = summary_of(write_sweep(), seconds=None)
    summary.estimates.problems["data.root: no such folder"] = list(summary.plan.distinct_runs[:2])
    assert shown(summary).splitlines()[-1] == "Not measured: 7; 14: data.root: no such folder"


def test_the_size_at_which_is_counted_is_said_and_whether_it_is_assumed() -> None:
    summary = summary_of(write_sweep(tasks=["classification", "detection"], seeds=1))
    costs = summary.checked.costs
    for run in summary.plan.distinct_runs:
        if run.task == "detection":
            costs[run.id] = replace(costs[run.id], image_size=(800, 1280), source="assumed")
    assert shown(summary).count("\n- GMACs, ") == 2
    assert "- GMACs, classification: of one input of 28 x 28 px\n" in shown(summary)
    assumed = "800 x 1280 px, assumed: nothing here says how large the images are"
    assert f"- GMACs, detection: of one input of {assumed}\n" in shown(summary)
    reported = plan_json(summary)["runs"]
    assert {(*run["image_size"], run["image_size_from"]) for run in reported} == {
        (28, 28, "options"),
        (800, 1280, "assumed"),
    }
    last = next(run for run in reversed(summary.plan.runs) if run.task == "detection")
    costs[last.id] = replace(costs[last.id], image_size=(800, 1088), source="images")
    measured = "800 x 1088 px, what most images become when they are evaluated (papers count 800 x 1280 px)"
    assert f"- GMACs, detection: of one input of {measured} ({last.cell.name})\n" in shown(summary)


def test_data_that_are_not_here_are_reported_by_a_plan_and_refused_by_a_sweep() -> None:
    plan = make_plan(write_sweep())
    checked = check_plan(plan, cast(WarmProcesses, FakeProcesses(absent={0: "/data: does not exist"})))
    states = dict.fromkeys((run.id for run in plan.runs), State.MISSING)
    summary = PlanSummary(plan, checked, DeviceSlots(2, 1), Estimates(), states)
    # both cells have the same data
    line = "Not on this machine, focal-lab sweep would refuse: /data: does not exist, for 7; 14"
    assert shown(summary).splitlines()[-1] == line
    assert plan_json(summary)["absent"] == {"/data: does not exist": ["7", "14"]}
    with pytest.raises(UserError, match=r"small\.yaml: /data: does not exist, for 7"):
        summary.refuse_untrainable()
    done = replace(summary, states=dict.fromkeys(states, State.FINISHED))
    done.refuse_untrainable()
    assert "Not on this machine" not in shown(done)


@pytest.mark.parametrize("width", [80, 120])
def test_lines_keep_to_the_terminal(width: int) -> None:
    factors = {
        "backbone": {"Swin-Tiny": {"backbone": "swin"}, "Focal-Tiny": {"backbone": "focal_tiny"}},
        "window_size": [7, 14],
    }
    path = write_sweep(factors=factors, seeds=3)
    text = shown(summary_of(path), width)
    tables = [line for line in text.splitlines() if not line.startswith(("- ", "All:"))]
    assert max(map(len, tables)) <= width
    assert re.search(r"Swin-Tiny +7 +0 +1\.000  0\.5000  700 MB  85 s  to train\n", text)


def test_long_plans_have_a_row_a_cell_and_are_shown_in_a_moment() -> None:
    rates = {f"lr{i}": {"model.lr": 0.001 * (i + 1)} for i in range(500)}
    path = write_sweep(factors={"rate": rates, "window_size": [7, 14]}, seeds=10)
    summary = summary_of(path, run0=State.FINISHED)
    start = time.process_time()
    text = shown(summary, 100)
    assert time.process_time() - start < 3
    (row,) = [line.split() for line in text.splitlines() if line.startswith("lr0 ") and " 7 " in line]
    assert row == ["lr0", "7", "10", "1.000", "0.5000", "700", "MB", "85", "s", "9", "1"]
    assert "lr0, 7; lr1, 7; lr2, 7; and 497 more" in text
    assert "10000 runs: 1 reused, 9999 to train" in text


def test_programs_get_everything() -> None:
    summary = summary_of(write_sweep(tasks=["classification", "detection"], seeds=1), run0=State.FINISHED)
    reported: dict[str, Any] = json.loads(json.dumps(plan_json(summary)))
    first, second, *_ = reported["runs"]
    assert (reported["to_train"], reported["reused"], reported["workers"]) == (3, 1, 2)
    assert reported["seconds"] == 255.0
    assert (first["state"], first["seconds"]) == ("finished", None)
    assert second["needs"] == first["run"]
    assert second["seconds"] == 85.0
    assert second["labels"] == {"window_size": "7"}
    assert second["effective"]["window"] == "7 7 4 2"


def test_a_search_is_as_long_as_its_proposals() -> None:
    summary = replace(summary_of(write_sweep()), proposals=9)
    assert shown(summary).splitlines()[-3:-1] == [
        "A search: 9 proposals to train; shown are examples at the ends of its ranges",
        "Training: 12 min 45 s in all; 7 min 05 s, 2 at a time with 1 thread each",
    ]
    with pytest.raises(UserError, match=r"^--budget: the time of 4 of 4 runs is unknown, 7 among them"):
        summary_of(write_sweep(), seconds=None).check_budget(1e9)
    summary.check_budget(425.0)
    with pytest.raises(
        UserError, match=r"^--budget: 9 runs need 7 min 05 s on 2 workers, more than 7 min 04 s"
    ):
        summary.check_budget(424.0)
    with pytest.raises(UserError, match=r"^--budget: 4 runs need"):
        summary_of(write_sweep()).check_budget(1.0)
