"""Every row is trained with what its label says: no setting may contradict it, whichever its spelling."""

from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import Plan, make_plan

pytestmark = pytest.mark.usefixtures("project")

BOTH = ["classification", "detection"]
OWN_AND_LARGE: dict[str, Any] = {"Own": {}, "Large": {"window_size": 14}}


def search(**ranges: Any) -> dict[str, Any]:
    return {"factors": {}, "seeds": 1, "search": {"trials": 3, "ranges": ranges}}


def windows(plan: Plan) -> list[tuple[str, int]]:
    options = [run.config["model"]["init_args"]["backbone_options"] for run in plan.distinct_runs]
    return [(run.cell.name, own["window_size"]) for run, own in zip(plan.distinct_runs, options, strict=True)]


@pytest.mark.parametrize(
    ("sweep", "setting", "place"),
    [
        ({"factors": {"window_size": [7]}}, setting, "factors.window_size")
        for setting in (
            "window_size=14",
            "model.backbone_options.window_size=14",
            "model.init_args.backbone_options.window_size=14",
            "model.backbone_options={window_size: 14}",
            "model.backbone_options={drop_rate: 0.1}",
            "model.backbone_options=",
            "classification.window_size=14",
            "detection.model.backbone_options.window_size=14",
        )
    ]
    + [
        ({"factors": {"model.lr": [1, 2]}}, "model.init_args.lr=3", "factors.model.lr"),
        ({"factors": {"detection.model.lr": [1, 2]}}, "model.lr=3", "factors.detection.model.lr"),
        ({"factors": {"net": OWN_AND_LARGE}}, "window_size=7", "factors.net.Large (window_size)"),
        ({"factors": {"net": {"F": {"model.backbone": "swin"}}}}, "backbone=swin", "factors.net.F"),
        (
            {"factors": {"net": {"F": {"model.backbone_options": {"window_size": 7}}}}},
            "window_size=14",
            "factors.net.F (model.backbone_options)",
        ),
        (search(**{"model.lr": {"low": 1, "high": 2.5}}), "model.init_args.lr=3", "search.ranges.model.lr"),
    ],
)
def test_a_setting_over_a_varied_one_is_refused_with_both_named(
    sweep: dict[str, Any], setting: str, place: str
) -> None:
    tasks = None if "search" in sweep else BOTH
    with pytest.raises(UserError) as caught:
        make_plan(write_sweep(**sweep), overrides=[setting], tasks=tasks)
    name = setting.partition("=")[0]
    assert str(caught.value).startswith(f"--set: {name}: {place}")
    assert "of sweeps/small.yaml varies this" in str(caught.value)


def test_a_setting_for_another_task_or_of_another_key_contradicts_no_label() -> None:
    path = write_sweep(factors={"classification.window_size": [7, 14]}, seeds=1)
    plan = make_plan(path, tasks=BOTH, overrides=["detection.window_size=7"])
    assert windows(plan)[::2] == [("7", 7), ("14", 14)]
    path = write_sweep(factors={"net": {"F": {"model.backbone_options": {"window_size": 7}}}}, seeds=1)
    assert windows(make_plan(path, overrides=["drop_path_rate=0.1"])) == [("F", 7)]


@pytest.mark.parametrize(
    "factors",
    [
        {"window_size": [7], "net": OWN_AND_LARGE},
        {"net": OWN_AND_LARGE, "window_size": [7]},
        {"net": {"Own": {}, "Large": {"model.backbone_options": {"window_size": 14}}}, "window_size": [7]},
        {"window_size": [7], "net": {"Own": {}, "Dropped": {"model.backbone_options": {"drop_rate": 0.1}}}},
    ],
)
@pytest.mark.parametrize("design", ["grid", "one_factor"])
def test_two_factors_that_set_one_key_differently_are_refused(factors: dict[str, Any], design: str) -> None:
    with pytest.raises(UserError, match="and so does factors") as caught:
        make_plan(write_sweep(factors=factors, design=design))
    assert all(name in str(caught.value) for name in ("factors.net.", "factors.window_size"))


def test_two_ranges_of_one_key_are_refused() -> None:
    numbers = {"low": 0.1, "high": 1.0}
    with pytest.raises(UserError, match=r"model\.lr: sets model\.lr, and so does search\.ranges"):
        make_plan(write_sweep(**search(**{"model.lr": numbers, "model.init_args.lr": numbers})))


def test_levels_that_never_meet_or_agree_may_set_one_key() -> None:
    factors = {"net": OWN_AND_LARGE, "window_size": [7, 14]}
    cells = [{"net": "Own", "window_size": 7}, {"net": "Large", "window_size": 14}]
    assert windows(make_plan(write_sweep(factors=factors, cells=cells, seeds=1))) == [
        ("Own, 7", 7),
        ("Large, 14", 14),
    ]


@pytest.mark.parametrize("name", ["window_size", "model.backbone_options.window_size"])
def test_a_default_that_every_level_changes_is_refused_and_one_that_some_change_is_not(name: str) -> None:
    with pytest.raises(UserError, match=r"is never used, because factors\.window_size varies this") as caught:
        make_plan(write_sweep(set={name: 14}))
    assert caught.value.key == f"set.{name}"
    plan = make_plan(write_sweep(factors={"net": OWN_AND_LARGE}, set={name: 7}, seeds=1))
    assert windows(plan) == [("Own", 7), ("Large", 14)]


def test_a_key_under_two_names_is_refused_and_that_of_one_task_goes_before_that_of_all() -> None:
    with pytest.raises(UserError, match=r"set: model\.init_args\.lr replaces model\.lr"):
        make_plan(write_sweep(set={"model.lr": 0.1, "model.init_args.lr": 0.2}))
    plan = make_plan(write_sweep(set={"detection.model.lr": 0.2, "model.lr": 0.1}), tasks=BOTH)
    assert {(run.task, run.config["model"]["init_args"]["lr"]) for run in plan.runs} == {
        ("classification", 0.1),
        ("detection", 0.2),
    }


def test_a_setting_does_not_append() -> None:
    with pytest.raises(
        UserError, match=r"^--set: trainer\.callbacks\+: settings replace values and cannot append"
    ):
        make_plan(write_sweep(), overrides=["trainer.callbacks+=[]"])


def test_the_seed_is_not_a_setting() -> None:
    with pytest.raises(
        UserError,
        match=r"'seed_everything' is not a setting: .*; a run's seed is one of the file, or of --seeds",
    ):
        make_plan(write_sweep(), overrides=["seed_everything=3"])
