"""Searches: proposals over ranges are trained once, are never lost, and come out best first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.finished_runs import finish
from support.small_project import write_sweep
from test_sweep_end_to_end import sweep, tiny

from focal_lab.errors import UserError
from focal_lab.sweep.commands.execution import settled
from focal_lab.sweep.engine.executor import ExecutionSummary
from focal_lab.sweep.engine.search_queue import SearchQueue
from focal_lab.sweep.engine.storage import JOURNAL
from focal_lab.sweep.identity.identity_table import old_names
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.pareto import best_first, front_sentence
from focal_lab.sweep.plan.plan import make_plan, with_proposals
from focal_lab.sweep.plan.proposals import Proposals, SearchSpace
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.result import (
    Failure,
    known_values,
    objective_values,
    read_result,
    write_record,
)
from focal_lab.training.history_file import Point, write_history

__all__ = ["tiny"]  # a fixture

RANGES: dict[str, Any] = {
    "model.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "drop_path_rate": {"low": 0.0, "high": 0.3, "step": 0.1},
    "window_size": [7, 14],
}


def write_search(**keys: Any) -> Path:
    search = {"trials": 6, "ranges": RANGES} | keys
    return write_sweep("search", factors={}, seeds=1, search=search, columns=["top1", "gmacs"])


def queue_of(path: Path, out: Path) -> tuple[SearchQueue, SearchSpace]:
    space = make_plan(path).space
    assert space is not None
    return SearchQueue(out, space), space


def proposed(queue: SearchQueue) -> list[str]:
    found = []
    while (claim := queue.claim()) is not None:
        found.append(claim.run)
        queue.finish(claim.run, {"top1": float(len(found)), "gmacs": 1.0})
    return found


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("search", "key", "why"),
    [
        ({"trials": 0}, "search.trials", "not a number of runs"),
        ({"sampler": "grid"}, "search.sampler", "use tpe or random"),
        ({"pruning": "median"}, "search.pruning", "use none or successive_halving"),
        ({"objectives": ["miou"]}, "search.objectives", "miou is not an objective of classification"),
        ({"objectives": {"top1": "up"}}, "search.objectives.top1", "use maximize or minimize"),
        (
            {"pruning": "successive_halving", "objectives": ["top1", "gmacs"]},
            "search.pruning",
            "so top1 must be the only objective",
        ),
        ({"ranges": {"model.lr": {"low": 1, "high": 0.1}}}, "search.ranges.model.lr", "not below"),
        ({"ranges": {"model.lr": {"low": 0, "high": 1, "log": True}}}, "search.ranges.model.lr", "logarithm"),
        ({"ranges": {"model.lr": {"low": 0, "high": "1"}}}, "search.ranges.model.lr.high", "not a number"),
        (
            {"ranges": {"model.lr": {"low": 0, "high": float("inf")}}},
            "search.ranges.model.lr.high",
            "not a num",
        ),
        ({"ranges": {"a": {"low": 0, "high": 5, "step": 2}}}, "search.ranges.a.step", "use high: 4 or 6"),
        (
            {"ranges": {"a": {"low": 0.0, "high": 0.32, "step": 0.05}}},
            "search.ranges.a.step",
            "does not divide",
        ),
        ({"ranges": {"a": {"low": 0, "high": 1, "step": 2}}}, "search.ranges.a.step", "use high: 2"),
        (
            {"ranges": {"a": {"low": 0, "high": 1, "step": 0}}},
            "search.ranges.a.step",
            "not a positive number",
        ),
        ({"ranges": {}}, "factors", "at least one factor"),
        ({"steps": 3}, "search", "steps is not a key of a search"),
    ],
)
def test_what_is_wrong_with_a_search_is_said_with_its_key(search: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(write_search(**search))
    assert str(caught.value).startswith(f"sweeps/search.yaml: {key}: ")
    assert why in str(caught.value)


@pytest.mark.usefixtures("project")
def test_a_range_whose_end_the_backbone_cannot_have_is_refused_before_any_work() -> None:
    ranges = {"window_size": {"low": 7, "high": 13}}
    with pytest.raises(UserError, match="13 is not a level of backbone"):
        make_plan(write_search(ranges=ranges))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("options", [{"seeds": 2}, {"tasks": ["classification", "detection"]}])
def test_a_search_has_one_task_and_one_seed(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"a search (has one task|trains each proposal once)"):
        make_plan(write_search(), **options)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_so_many_runs_are_proposed_and_no_more(tmp_path: Path, sampler: str) -> None:
    queue, space = queue_of(write_search(sampler=sampler), tmp_path)
    assert not queue.exhausted
    found = proposed(queue)
    assert len(set(found)) == 6
    assert queue.exhausted
    for run in queue.proposals.runs().values():
        lr = run.config["model"]["init_args"]["lr"]
        assert 1e-4 <= lr <= 1e-2
        assert run.cell.labels["model.lr"] == f"{lr:g}"
        assert run.cell.labels["window_size"] in ("7", "14")
        assert run.config["model"]["init_args"]["backbone_options"]["drop_path_rate"] in (0.0, 0.1, 0.2, 0.3)
    # the same seed proposes the same
    again, _ = queue_of(write_search(sampler=sampler), tmp_path / "again")
    assert proposed(again) == found
    # more trials go on with the same study
    more, later = queue_of(write_search(sampler=sampler, trials=8), tmp_path)
    assert later.study == space.study
    assert len(proposed(more)) == 2


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize(
    ("ranges", "cells"),
    [
        ({"model.lr": [1, 2, 3]}, ["1", "2", "3"]),
        ({"model.lr": [1, 2], "window_size": [7, 14]}, ["1, 14", "1, 7", "2, 14", "2, 7"]),
        ({"model.x": {"low": 1, "high": 4, "log": True}}, ["1", "2", "3", "4"]),
        ({"model.x": {"low": 1234567, "high": 1234569}}, ["1234567", "1234568", "1234569"]),
        ({"drop_path_rate": {"low": 0.1, "high": 0.7, "step": 0.2}}, ["0.1", "0.3", "0.5", "0.7"]),
        ({"drop_path_rate": {"low": 0.1, "high": 0.1001}}, ["0.1", "0.1001"]),  # at four digits
        ({"window_size": {"low": 7, "high": 14}}, ["14", "7"]),  # the others are no windows of this map
    ],
)
def test_a_finite_space_is_tried_to_its_end_and_each_combination_once(
    tmp_path: Path, sampler: str, ranges: dict[str, Any], cells: list[str]
) -> None:
    path = write_search(trials=9, sampler=sampler, ranges=ranges)
    queues = [queue_of(path, tmp_path)[0], queue_of(path, tmp_path)[0]]
    first = queues[1].claim()  # two commands at the same time
    assert first is not None
    found = [first.run, *proposed(queues[0])]
    assert not queues[0].exhausted
    queues[1].finish(first.run, {"top1": 1.0, "gmacs": 1.0})
    runs = queues[0].proposals.runs()
    assert sorted(runs[run].cell.name for run in found) == sorted(cells)
    assert queues[1].claim() is None
    assert all(queue.spent and queue.exhausted for queue in queues)
    # the command once more, with more trials
    later, space = queue_of(write_search(trials=20, sampler=sampler, ranges=ranges), tmp_path)
    assert (proposed(later), later.exhausted) == ([], True)
    assert space.trials <= 20
    total = settled(summary := ExecutionSummary(trained=found[1:]), later, 20, tmp_path)
    assert (total, summary.reused) == (len(cells), [])


@pytest.mark.usefixtures("project")
def test_what_another_sweep_has_trained_is_a_trial_and_is_counted(tmp_path: Path) -> None:
    path = write_search(trials=3, ranges={"model.lr": [1, 2, 3]})
    queue, space = queue_of(path, tmp_path)
    there = space.run({"model.lr": "2"}).id
    finish(tmp_path, there, metrics={"top1": 80.0}, gmacs=1.0)
    found = proposed(queue)
    summary = ExecutionSummary(trained=found)
    assert (len(set(found)), settled(summary, queue, 3, tmp_path), summary.reused) == (2, 3, [there])


@pytest.mark.usefixtures("project")
def test_two_queues_share_the_trials(tmp_path: Path) -> None:
    path = write_search()
    first, second = queue_of(path, tmp_path)[0], queue_of(path, tmp_path)[0]
    found = []
    for queue in (first, second) * 3:
        claim = queue.claim()
        assert claim is not None
        found.append(claim.run)
    assert len(set(found)) == 6
    assert first.claim() is None
    assert not second.exhausted  # somebody trains: if he dies, there is work left
    for run in found[:2]:
        (first if run == found[0] else second).finish(run, {"top1": 1.0, "gmacs": 1.0})


@pytest.mark.usefixtures("project")
def test_what_was_pruned_is_known_even_when_the_storage_is_lost(tmp_path: Path) -> None:
    queue, space = queue_of(write_search(), tmp_path)
    claim = queue.claim()
    assert claim is not None
    why = "stopped early at epoch 1"
    failure = Failure(claim.run, "classification", 0, why, [], 1, "2026-01-01T00:00:00+00:00", pruned=True)
    write_record(tmp_path / claim.run, failure)
    queue.end(claim.run, "pruned", why)
    (tmp_path / JOURNAL).unlink()
    again, _ = queue_of(write_search(), tmp_path)
    assert claim.run not in proposed(again)
    assert len(Proposals(tmp_path, space).runs()) == 6


def test_a_space_survives_its_journey_to_another_machine(project: None) -> None:
    space = make_plan(write_search(), overrides=["trainer.max_epochs=1"]).space
    assert space is not None
    there = SearchSpace.from_dict(json.loads(json.dumps(space.as_dict())))
    assert there.study == space.study
    for params in space.probes():
        assert there.run(params).id == space.run(params).id


def test_a_search_of_an_earlier_version_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = make_plan(Path("sweeps/learning_rate.yaml"), overrides=["data.train_pictures=64"])
    named = make_plan(Path("sweeps/learning_rate.yaml"), overrides=["data.num_train_images=64"])
    assert make_plan(Path("sweeps/learning_rate.yaml")).study == "learning_rate-digits-be116bfa"
    assert plan.study == named.study
    assert plan.space is not None
    raw = json.loads(json.dumps(plan.space.as_dict()))
    there = SearchSpace.from_dict(raw | {"experiment": old_names(raw["experiment"])})
    assert there.study == plan.study
    params = next(plan.space.probes())
    assert there.run(params).id == plan.space.run(params).id


def test_a_search_is_trained_reported_and_reused(tiny: Path) -> None:
    path = write_search(trials=4, objectives=["top1", "gmacs"])
    first = sweep(str(path), "--workers", "2")
    assert first.returncode == 0, first.stderr
    assert "4 runs: 4 trained, 0 reused" in first.stderr
    assert "the Pareto front of high validation top1 and low gmacs" in " ".join(first.stdout.split())
    (tiny / JOURNAL).unlink()
    second = sweep(str(path))
    assert "4 runs: 0 trained, 4 reused" in second.stderr
    plan = with_proposals(make_plan(path), tiny)
    assert len(plan.distinct_runs) == 4
    reported = subprocess.run(
        [sys.executable, "-m", "focal_lab.cli", "report", str(path), "--format", "csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(reported.stdout.splitlines()) == 5


def test_successive_halving_stops_the_worse_runs(tiny: Path) -> None:
    ranges = {"model.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    path = write_sweep(
        "search",
        factors={},
        seeds=1,
        search={"trials": 8, "ranges": ranges, "pruning": "successive_halving"},
        set={"trainer.max_epochs": 6},
    )
    done = sweep(str(path), "--workers", "1")
    assert done.returncode == 0, done.stderr
    pruned = [json.loads(file.read_text()) for file in tiny.glob("*/failure.json")]
    assert pruned
    assert all(record["pruned"] and "others were better" in record["reason"] for record in pruned)
    assert f"{len(pruned)} stopped early" in done.stderr
    assert len(list(tiny.glob("*/result.json"))) + len(pruned) == 8
    again = sweep(str(path))
    assert "0 trained" in again.stderr


def test_runs_that_no_other_one_beats_come_first(out: Path) -> None:
    runs = [Run(f"run{i}", Cell({}, {}), "classification", i, {}, {}) for i in range(5)]
    for run, (top1, gmacs) in zip(runs, [(80.0, 2.0), (70.0, 3.0), (75.0, 1.0), (60.0, 0.5)], strict=False):
        # the test split says the contrary
        finish(out, run.id, metrics={"top1": 99 - top1}, validation={"top1": top1}, gmacs=gmacs)
    ordered, front = best_first(runs, out, {"top1": "maximize", "gmacs": "minimize"})
    assert [run.id for run in ordered] == ["run0", "run2", "run3", "run1", "run4"]
    assert front == 3
    reported = front_sentence(front, {"top1": "maximize", "gmacs": "minimize"}, 4)
    assert reported is not None
    assert "The columns show the final test, which was not used for selection." in reported
    assert reported.startswith("The first 3 rows are the Pareto front of high validation top1 and low gmacs")


@pytest.mark.parametrize("validation", [{}, {"top1": 60.0}])
def test_an_objective_is_never_the_test_split(validation: dict[str, float], out: Path) -> None:
    result = finish(out, "run0", metrics={"top1": 90.0}, validation=validation)
    found = objective_values(known_values(result), ["gmacs", "top1"])
    assert found == ([result.gmacs, 60.0] if validation else None)


def test_an_older_result_is_compared_by_its_curves(out: Path) -> None:
    finish(out, "run0", metrics={"top1": 90.0})
    record = json.loads((out / "run0/result.json").read_text())
    del record["validation"], record["evaluated"]
    (out / "run0/result.json").write_text(json.dumps(record))
    points = [
        Point(float(epoch), epoch, {"val/top1": top1}) for epoch, top1 in ((1, 50.0), (2, 70.0), (3, 60.0))
    ]
    write_history(out / "run0", points)
    result = read_result(out / "run0")
    assert result is not None
    assert objective_values(known_values(result), ["top1"]) == [70.0]


def test_a_dashboard_of_optuna_shows_labels_and_values(tiny: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    path = str(write_sweep(factors={"window_size": [7, 14]}, seeds=1, set={"trainer.max_epochs": 2}))
    assert sweep(path).returncode == 0
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    application = dashboard.wsgi(JournalStorage(JournalFileBackend(str(tiny / JOURNAL))))
    (study,) = ask(application, "/api/studies")["study_summaries"]
    assert study["study_name"].startswith("small-digits-")
    trials = ask(application, f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete"]
    shown = [{param["name"]: param["param_external_value"] for param in trial["params"]} for trial in trials]
    assert {row["window_size"] for row in shown} == {"7", "14"}
    for trial in trials:
        attributes = {entry["key"]: entry["value"] for entry in trial["user_attrs"]}
        assert float(attributes["top1"]) == trial["values"][0]
        assert {"gmacs", "params", "run", "worker"} <= attributes.keys()
        assert [value["step"] for value in trial["intermediate_values"]] == [1, 2]


def ask(application: Any, path: str) -> Any:
    """What a WSGI application answers to GET."""
    from wsgiref.util import setup_testing_defaults

    environment: dict[str, Any] = {}
    setup_testing_defaults(environment)
    environment["PATH_INFO"] = path
    answer = b"".join(application(environment, lambda *_: None))
    return json.loads(answer)
