from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from support.finished_runs import finish, make_plan

from focal_lab.report.table.left_out import left_out
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run


def planned(tasks: Sequence[str], seeds: Sequence[int], lr: float = 0.1, suite: str = "digits") -> Plan:
    """A sweep of one cell, whose runs' ids say what they are."""
    runs = tuple(
        Run(f"{task}-{suite}-{lr}-{seed}", Cell({"window": "7"}, {}), task, seed, {}, identity)
        for task in tasks
        for seed in seeds
        for identity in [{"task": task, "lr": lr, "suite": suite, "seed_everything": seed}]
    )
    fake = make_plan({"window": ["7"]}, tasks=tasks, seeds=seeds)
    return replace(fake, runs=runs, suite=suite)  # type: ignore[return-value, type-var]


def train(out: Path, study: str, plan: Plan, sweep: str = "window_size") -> None:
    write_manifest(out, Manifest(study, sweep, plan.suite, "", plan.runs))
    for run in plan.runs:
        finish(out, run.id, seed=run.seed, task=run.task)


def test_finished_runs_that_a_report_does_not_show_are_counted_by_what_they_differ_in(out: Path) -> None:
    train(out, "one", planned(["classification"], [0, 1, 2, 10]))
    train(out, "two", planned(["detection"], [0, 1]))
    train(out, "three", planned(["classification"], [0], lr=0.2))
    train(out, "four", planned(["classification"], [0], suite="imagenet"))
    train(out, "same", planned(["classification"], [3]), sweep="another")
    train(out, "none", planned(["classification"], [0], lr=0.3), sweep="another")
    write_manifest(out, Manifest("late", "window_size", "digits", "", planned(["classification"], [7]).runs))
    assert list(left_out(planned(["classification"], [0, 1]), out)) == [
        "Left out, although finished: 3 of seeds 2 and 3 and 10, 1 with other settings (lr), "
        "1 on suite imagenet, 2 of detection "
        "(--seeds, --tasks, --suite and --set select which runs are shown)."
    ]
    assert list(left_out(planned(["classification"], [0, 1, 2, 3, 10], lr=0.3), out / "none")) == []


def test_a_report_of_everything_leaves_nothing_out(out: Path) -> None:
    train(out, "one", planned(["classification", "detection"], [0, 1, 2]))
    assert list(left_out(planned(["classification", "detection"], [0, 1, 2]), out)) == []


def coded(code: dict[str, str], seeds: Sequence[int] = (0, 1), **others: object) -> Plan:
    plan = planned(["classification"], seeds)
    runs = [
        replace(
            run,
            id=f"{run.id}-{code}-{others}".replace("/", "-"),
            identity={**run.identity, "code": code, **others},
        )
        for run in plan.runs
    ]
    return replace(plan, runs=tuple(runs))


def test_runs_of_other_code_are_named_with_the_modules_that_changed(out: Path) -> None:
    train(out, "one", coded({"mine": "a", "helper": "a", "same": "a"}))
    train(out, "two", coded({"mine": "a", "same": "a"}, [0]), sweep="another")
    assert list(left_out(coded({"mine": "b", "same": "a"}, [0, 1, 2]), out)) == [
        "3 finished runs are of other code, which has changed since: helper, mine."
    ]


def test_a_changed_path_and_another_version_are_named(out: Path) -> None:
    train(out, "one", coded({}, [0], data={"class_path": "x.Y", "init_args": {"root": "old"}}, version=2))
    train(out, "two", coded({}, [0], version=1))
    assert list(
        left_out(coded({}, [0], data={"class_path": "x.Y", "init_args": {"root": "new"}}, version=2), out)
    ) == [
        "Left out, although finished: 1 with other settings (data.root) "
        "(--seeds, --tasks, --suite and --set select which runs are shown).",
        "1 finished run is of an earlier version of focal-lab, which may not be comparable.",
    ]


def test_a_run_that_starts_from_another_run_is_not_of_another_seed(out: Path) -> None:
    train(out, "one", coded({}, [0]))
    again = coded({}, [0])
    assert list(left_out(replace(again, runs=(replace(again.runs[0], id="other"),)), out)) == [
        "Left out, although finished: 1 that start from other runs "
        "(--seeds, --tasks, --suite and --set select which runs are shown)."
    ]
