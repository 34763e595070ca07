import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import Plan, make_plan, parse_overrides
from focal_lab.sweep.plan.recall import recall_plan, remember
from focal_lab.sweep.plan.runs import effective_summary, hash_of

pytestmark = pytest.mark.usefixtures("project")

OUT = Path("runs")
PLANNING = """
import sys
from pathlib import Path
from focal_lab.sweep.plan.recall import recall_plan, remember
from focal_lab.sweep.plan.plan import make_plan
plan = make_plan(Path("sweeps/small.yaml"))
remember(plan, Path("runs"), [])
assert recall_plan(Path("sweeps/small.yaml"), Path("runs")).study == plan.study
print(*sys.modules)
"""


def ids(plan: Plan) -> list[str]:
    return [run.id for run in plan.runs]


def test_runs_follow_the_rows_and_training_goes_seed_by_seed() -> None:
    plan = make_plan(write_sweep(seeds=[4, 1], tasks=["classification", "detection"]))
    assert [cell.name for cell in plan.cells] == ["7", "14"]
    assert [(run.cell.name, run.task[:3], run.seed) for run in plan.runs[:5]] == [
        ("7", "cla", 4),
        ("7", "cla", 1),
        ("7", "det", 4),
        ("7", "det", 1),
        ("14", "cla", 4),
    ]
    assert [(run.seed, run.cell.name, run.task[:3]) for run in plan.distinct_runs] == [
        (4, "7", "cla"),
        (4, "7", "det"),
        (4, "14", "cla"),
        (4, "14", "det"),
        (1, "7", "cla"),
        (1, "7", "det"),
        (1, "14", "cla"),
        (1, "14", "det"),
    ]


def test_the_suite_and_the_seeds_may_be_chosen_for_a_file() -> None:
    path = write_sweep(seeds=2)
    assert make_plan(path).suite == "digits"
    plan = make_plan(path, suite="large", seeds=3)
    assert (plan.suite, plan.sweep.seeds, len(plan.runs)) == ("large", (0, 1, 2), 6)
    assert plan.runs[0].backbone == "focal_tiny_patch4_window7_224"
    assert make_plan(path, seeds=[7, 5]).sweep.seeds == (7, 5)


@pytest.mark.parametrize("seeds", [0, -2, [1, 1]])
def test_wrong_seeds_of_the_command_line_are_refused(seeds: Any) -> None:
    with pytest.raises(UserError, match=r"^--seeds: .* is neither a number of seeds nor a list of"):
        make_plan(write_sweep(), seeds=seeds)


def test_another_tasks_run_starts_from_the_classification_of_its_cell_and_seed() -> None:
    plan = make_plan(write_sweep(), tasks=["detection", "classification"])
    parents = {run.id: run for run in plan.runs if run.task == "classification"}
    children = [run for run in plan.runs if run.task == "detection"]
    assert len(children) == len(parents) == 4
    for child in children:
        parent = parents[child.needs or ""]
        assert (parent.cell, parent.seed) == (child.cell, child.seed)
        assert child.identity["needs"] == parent.id
        assert "backbone_checkpoint" not in child.config["model"]["init_args"]
    other = make_plan(
        write_sweep(), tasks=["detection", "classification"], overrides=["classification.model.lr=1"]
    )
    assert not {run.id for run in other.runs} & {run.id for run in plan.runs}


def test_a_task_alone_or_with_a_checkpoint_of_its_own_waits_for_nothing() -> None:
    alone = make_plan(write_sweep(), tasks=["detection"])
    assert {run.needs for run in alone.runs} == {None}
    own = make_plan(
        write_sweep(),
        tasks=["classification", "detection"],
        overrides=["detection.model.backbone_checkpoint=mine.pt"],
    )
    assert {run.needs for run in own.runs} == {None}


def test_a_setting_with_a_tasks_name_is_for_that_task_alone() -> None:
    plan = make_plan(
        write_sweep(),
        tasks=["classification", "detection"],
        overrides=["detection.trainer.max_epochs=7", "model.lr=1"],
    )
    assert {(run.task, run.config["trainer"]["max_epochs"]) for run in plan.runs} == {
        ("classification", 2),
        ("detection", 7),
    }
    assert {run.config["model"]["init_args"]["lr"] for run in plan.runs} == {1}
    with pytest.raises(UserError, match="the sweep does not run detection") as error:
        make_plan(write_sweep(), overrides=["detection.trainer.max_epochs=7"])
    assert error.value.key == "--set"
    with pytest.raises(UserError, match="'cooking' is unknown") as error:
        make_plan(write_sweep(), tasks=["cooking"])
    assert error.value.key == "--tasks"


def test_the_tasks_of_the_last_sweep_are_recalled(tmp_path: Path) -> None:
    path = write_sweep()
    remember(make_plan(path, tasks=["detection"]), tmp_path, [])
    assert recall_plan(path, tmp_path).sweep.tasks == ("detection",)
    assert recall_plan(path, tmp_path, tasks=["classification"]).sweep.tasks == ("classification",)


def test_an_unknown_suite_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"^--suite: 'imagenet' is not a suite \(use digits or large\)$"):
        make_plan(write_sweep(), suite="imagenet")


def test_a_task_that_the_suite_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"^experiments/large/detection\.yaml: suite large has no experiment"):
        make_plan(write_sweep(tasks=["detection"]), suite="large")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("window_size=7", {"window_size": 7}),
        ("depths=[2, 2, 6, 2]", {"depths": [2, 2, 6, 2]}),
        ("use_shift=true", {"use_shift": True}),
        ("model.lr=1e-3", {"model.lr": 0.001}),
        ("data.root=a=b", {"data.root": "a=b"}),
        ("model.layer_decay=", {"model.layer_decay": None}),
        (" backbone = resnet18 ", {"backbone": "resnet18"}),
        ("model.backbone_options={drop_rate: 0.1}", {"model.backbone_options": {"drop_rate": 0.1}}),
    ],
)
def test_values_of_the_command_line_mean_what_they_look_like(text: str, settings: dict[str, Any]) -> None:
    assert parse_overrides([text]) == settings


def test_of_two_values_for_a_key_the_last_counts() -> None:
    assert parse_overrides(["window_size=7", "window_size=14"]) == {"window_size": 14}
    between = ["model.lr=1", "model.init_args.lr=2", "model.lr=3"]
    assert list(parse_overrides(between).items())[-1] == ("model.lr", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window_size", "--set: 'window_size' is not KEY=VALUE"),
        ("=7", "--set: '=7' is not KEY=VALUE"),
        ("depths=[2, 2", "--set depths=[2, 2: is not YAML: line 2, column 1: did not find"),
    ],
)
def test_what_is_not_key_and_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_overrides([text])
    assert str(caught.value).startswith(message)


def test_two_labels_of_one_network_are_refused_with_the_way_out() -> None:
    levels = {"Own": {}, "Large": {"window_size": 14}, "Seven": {"window_size": 7}}
    path = write_sweep(factors={"net": levels})
    with pytest.raises(UserError) as caught:
        make_plan(path)
    assert str(caught.value) == (
        "sweeps/small.yaml: factors.net: Own and Seven are the same network at this size; drop one, or set "
        "allow_degenerate: true"
    )


@pytest.mark.parametrize("levels", [[False, True], [True, False]])
def test_the_refusal_says_what_was_not_honoured_in_either_order(levels: list[bool]) -> None:
    factors = {"net": {"A": {"backbone": "swin"}}, "use_shift": levels}
    path = write_sweep(factors=factors, set={"window_size": 14})
    with pytest.raises(UserError) as caught:
        make_plan(path)
    names = " and ".join(f"A, {str(level).lower()}" for level in levels)
    assert str(caught.value).startswith(
        f"sweeps/small.yaml: factors.use_shift: {names} are the same network at this size "
        "(stage 1: shift is off: the window covers the map; stage 2: shift is off: "
    )
    assert "becomes the" not in str(caught.value)


def test_degenerate_cells_that_are_insisted_on_share_their_runs() -> None:
    factors = {"net": {"Own": {}, "Seven": {"window_size": 7}}}
    plan = make_plan(write_sweep(factors=factors, allow_degenerate=True, seeds=2))
    assert (len(plan.cells), len(plan.runs), len(plan.distinct_runs)) == (2, 4, 2)
    assert [run.seed for run in plan.distinct_runs] == [0, 1]
    assert ids(plan)[:2] == ids(plan)[2:]


def test_the_study_has_a_name_of_its_own_for_every_content_but_seeds_join_it() -> None:
    path = write_sweep()
    plans = [make_plan(path), make_plan(path, overrides=["model.lr=1"]), make_plan(path, suite="large")]
    names = [plan.study for plan in plans]
    assert len(set(names)) == 3
    assert names[0].startswith("small-digits-")
    assert make_plan(path, seeds=3).study == make_plan(path, seeds=[9]).study == names[0]
    other = make_plan(write_sweep(factors={"window_size": [7]}))
    assert other.study not in names


@pytest.mark.parametrize(
    ("suite", "seeds", "overrides"),
    [
        (None, None, []),
        ("large", None, []),
        (None, 4, []),
        (None, [9, 2], ["model.lr=1e-3"]),
        ("large", 1, ["drop_path_rate=0.1", "data.root=a b"]),
    ],
)
def test_a_sweep_is_recalled_as_it_was_last_run(suite: Any, seeds: Any, overrides: list[str]) -> None:
    path = write_sweep()
    plan = make_plan(path, suite=suite, seeds=seeds, overrides=overrides)
    remember(make_plan(path, seeds=5), OUT, ["model.lr=7"])
    remember(plan, OUT, overrides)
    assert recall_plan(path, OUT) == plan


def test_what_is_asked_for_goes_before_what_was_noted() -> None:
    path = write_sweep()
    noted = ["model.lr=0.5"]
    remember(make_plan(path, seeds=4, overrides=noted), OUT, noted)
    assert ids(recall_plan(path, OUT, seeds=1)) == ids(make_plan(path, seeds=1, overrides=noted))
    changed = recall_plan(path, OUT, overrides=["model.lr=0.1"])
    assert ids(changed) == ids(make_plan(path, seeds=4, overrides=["model.lr=0.1"]))
    assert recall_plan(path, OUT, suite="digits") == make_plan(path, seeds=4, overrides=noted)
    with pytest.raises(UserError, match=r"^--seeds: 0 is neither"):
        recall_plan(path, OUT, seeds=0)


def test_the_command_of_a_plan_repeats_every_option_quoted_also_when_it_is_recalled() -> None:
    path = write_sweep("my sweep")
    settings = ["model.lr=1e-3", "data.augmentation={flip: 0.5}"]
    plan = make_plan(path, suite="large", seeds=3, overrides=settings)
    reported = (
        "focal-lab sweep 'sweeps/my sweep.yaml' --suite large --seeds 3 --set model.lr=1e-3 "
        "--set 'data.augmentation={flip: 0.5}' --out 'my runs'"
    )
    assert plan.command(Path("my runs")) == reported
    remember(plan, OUT, settings)
    assert recall_plan(path, OUT).command(Path("my runs")) == reported
    assert make_plan(path).command(OUT) == "focal-lab sweep 'sweeps/my sweep.yaml'"
    detected = make_plan(path, tasks=["classification", "detection"]).command(OUT)
    assert detected == "focal-lab sweep 'sweeps/my sweep.yaml' --tasks classification detection"


def test_notes_of_one_suite_say_nothing_about_another() -> None:
    path = write_sweep(seeds=2)
    remember(make_plan(path, seeds=4, overrides=["model.lr=0.5"]), OUT, ["model.lr=0.5"])
    assert recall_plan(path, OUT, suite="large") == make_plan(path, suite="large")


@pytest.mark.parametrize(
    "text",
    [
        '{"suite": "lar',
        "",
        "[]",
        "null",
        "\x00\xff",
    ],
)
def test_damaged_notes_are_as_good_as_none(text: str) -> None:
    path = write_sweep()
    remember(make_plan(path, suite="large", seeds=4), OUT, [])
    (notes,) = (OUT / "sweeps").iterdir()
    assert json.loads(notes.read_text())["suite"] == "large"
    notes.write_text(text, encoding="latin-1")
    assert recall_plan(path, OUT) == make_plan(path)


def test_without_notes_a_sweep_is_planned_as_its_file_says() -> None:
    path = write_sweep()
    assert recall_plan(path, OUT) == make_plan(path)
    assert not OUT.exists()


def test_the_summary_tells_what_each_stage_comes_to() -> None:
    seven, fourteen = make_plan(write_sweep(seeds=1)).runs
    assert effective_summary(seven) == {
        "depth": "2 2 2 2",
        "map": "14 7 4 2",
        "window": "7 7 4 2",
        "shift": "0 0 0 0",
        "expand": "3 0 0 0",
        "levels": "2 2 2 2",
        "keys": "178 50 17 5",
    }
    assert effective_summary(fourteen)["window"] == "14 7 4 2"
    at_32 = effective_summary(seven, (32, 32))
    assert at_32 == effective_summary(seven) | {"map": "16 8 4 2"}
    assert effective_summary(seven, (30, 65))["map"] == "15x33 8x17 4x9 2x5"
    (released,) = make_plan(write_sweep(factors={"border": ["wrap"]}, seeds=1)).runs
    assert effective_summary(released, (30, 30))["map"] == "15 7 3 1"  # its convolution cuts odd rows


def test_the_summary_of_a_rectangular_map_has_both_sides() -> None:
    (run,) = make_plan(write_sweep(factors={"img_size": [[28, 56]]}, seeds=1)).runs
    assert effective_summary(run)["map"] == "14x28 7x14 4x7 2x4"


def test_a_backbone_that_is_not_focal_has_no_summary() -> None:
    (run,) = make_plan(write_sweep(factors={"backbone": ["resnet18"]}, seeds=1)).runs
    assert effective_summary(run) == {}


def test_planning_imports_nothing_heavy() -> None:
    write_sweep()
    child = subprocess.run([sys.executable, "-c", PLANNING], capture_output=True, text=True, check=True)
    modules = set(child.stdout.split())
    assert "focal_lab.backbones.presets" in modules
    assert modules.isdisjoint({"torch", "timm", "lightning", "optuna", "numpy", "pandas", "jsonargparse"})


def test_ten_thousand_runs_are_named_in_seconds() -> None:
    rates = {f"rate {step}": {"model.lr": round(0.001 * (step + 1), 3)} for step in range(50)}
    factors = {"window_size": [7, 14], "drop_path_rate": [0.0, 0.1], "rate": rates}
    path = write_sweep(factors=factors, seeds=50)
    start = time.process_time()
    plan = make_plan(path)
    assert len({run.id for run in plan.distinct_runs}) == 10_000
    assert plan.distinct_runs[200].seed == 1
    # a tenth of a second here; it was 1.5
    assert time.process_time() - start < 3


def test_an_id_is_the_hash_of_the_whole_identity() -> None:
    plan = make_plan(write_sweep(seeds=[3, 0], tasks=["detection", "classification"]))
    assert [run.id for run in plan.runs] == [hash_of(run.identity)[:12] for run in plan.runs]
    assert len({run.id for run in plan.runs}) == 8


def test_cells_do_not_share_what_one_of_them_sets() -> None:
    path = write_sweep(factors={"model.betas": [[0.9, 0.99], [0.8, 0.99]]}, set={"data.batch_size": 8})
    first, second = make_plan(path, seeds=1).runs
    assert first.config["model"]["init_args"]["betas"] == [0.9, 0.99]
    assert second.config["model"]["init_args"]["betas"] == [0.8, 0.99]
    assert first.config["data"] == second.config["data"]
