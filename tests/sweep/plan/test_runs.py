from inspect import signature
from typing import Any

import pytest
from support.small_project import DIGITS, write, write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.identity.identity_table import RATES
from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.plan.runs import Run, hash_of
from focal_lab.sweep.plan.settings import setting_key
from focal_lab.utils.yaml import load_yaml

pytestmark = pytest.mark.usefixtures("project")

BASELINE: dict[str, Any] = {"net": {"Focal": {}}}
INIT = "init_args: {backbone: focal_micro, num_classes: 10, lr: 3e-3}"


def plan_runs(*overrides: str, suite: str = "digits", **keys: Any) -> tuple[Run, ...]:
    keys = {"factors": BASELINE, "seeds": 1} | keys
    return make_plan(write_sweep(**keys), suite=suite, overrides=overrides).runs


def only_run(*overrides: str, **keys: Any) -> Run:
    (run,) = plan_runs(*overrides, **keys)
    return run


def refusal(*overrides: str, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan_runs(*overrides, **keys)
    return str(caught.value)


def test_a_run_is_a_complete_lightning_cli_configuration() -> None:
    run = plan_runs("trainer.max_epochs=7", seeds=[5], set={"data.batch_size": 32, "model.wd": 0.1})[0]
    assert run.config == {
        "seed_everything": 5,
        "trainer": {"max_epochs": 7, "log_every_n_steps": 20},
        "model": {
            "class_path": "focal_lab.tasks.Classification",
            "init_args": {
                "backbone": "focal_micro_patch2_window7_28",
                "num_classes": 10,
                "lr": 0.003,
                "wd": 0.1,
            },
        },
        "data": {
            "class_path": "focal_lab.data.DigitsClassification",
            "init_args": {"batch_size": 32},
        },
    }
    assert (run.task, run.seed, run.backbone) == ("classification", 5, "focal_micro_patch2_window7_28")
    assert next(iter(run.config)) == "seed_everything"


def test_a_runs_id_begins_the_hash_of_its_identity() -> None:
    run = only_run()
    assert run.config_hash == hash_of(run.identity)
    assert (run.config_hash[:12], len(run.config_hash)) == (run.id, 64)


def test_overrides_lie_over_levels_over_the_sweeps_settings_over_the_experiment() -> None:
    factors = {"rate": {"own": {}, "level": {"model.lr": 0.3}}}

    def rates(*overrides: str, **keys: Any) -> list[float]:
        runs = plan_runs(*overrides, factors=factors, allow_degenerate=True, **keys)
        return [run.config["model"]["init_args"]["lr"] for run in runs]

    assert rates() == [0.003, 0.3]
    assert rates(set={"model.lr": 0.2}) == [0.2, 0.3]
    factors = {"rate": {"own": {}}}
    assert rates("model.lr=0.4", set={"model.lr": 0.2}) == [0.4]


def test_a_level_does_not_leak_into_the_next_cell() -> None:
    factors = {"net": {"Narrow": {"expand_sizes": 0}, "Own": {}}}
    narrow, own = plan_runs(factors=factors, set={"model.backbone_options": {"drop_path_rate": 0.1}})
    assert narrow.config["model"]["init_args"]["backbone_options"] == {
        "drop_path_rate": 0.1,
        "expand_sizes": 0,
    }
    assert own.config["model"]["init_args"]["backbone_options"] == {"drop_path_rate": 0.1}


@pytest.mark.parametrize(
    "setting",
    [
        "window_size=7",
        "window_size=[7, 7, 7, 7]",
        "model.backbone_options.window_size=7",
        "model.init_args.backbone_options={window_size: [7, 7, 7, 7]}",
        "focal_windows=[3, 1, 1, 1]",
        "use_shift=false",
        "drop_path_rate=0.0",
        "backbone=focal_micro",
        "backbone=focal_micro_patch2_window7_28",
        "model.lr=3e-3",
        "trainer.enable_progress_bar=false",
        "trainer.enable_model_summary=true",
        "trainer.logger=false",
        "trainer.log_every_n_steps=1",
        "data.num_workers=2",
    ],
)
def test_what_changes_nothing_but_the_display_or_the_wording_keeps_the_id(setting: str) -> None:
    assert only_run(setting).id == only_run().id


@pytest.mark.parametrize(
    "setting",
    [
        "window_size=14",
        "window_size=[14, 7, 7, 7]",
        "drop_path_rate=0.1",
        "border=wrap",
        "model.backbone_options.drop_rate=0.1",
        "backbone=swin",
        "backbone=resnet18",
        "model.lr=0.002",
        "model.class_path=mine.Model",
        "data.batch_size=32",
        "trainer.max_epochs=3",
        "trainer.precision=bf16-mixed",
    ],
)
def test_what_can_change_the_result_changes_the_id(setting: str) -> None:
    assert only_run(setting).id != only_run().id


def test_seeds_and_tasks_have_ids_of_their_own() -> None:
    runs = plan_runs(seeds=3, tasks=["classification", "detection"])
    assert len({run.id for run in runs}) == 6
    assert [(run.task, run.seed) for run in runs[:4]] == [
        ("classification", 0),
        ("classification", 1),
        ("classification", 2),
        ("detection", 0),
    ]


def test_the_same_run_has_the_same_id_in_every_sweep_that_needs_it() -> None:
    windows = make_plan(write_sweep("windows", factors={"window_size": [14, 7]}, seeds=2))
    shifts = make_plan(write_sweep("shifts", factors={"use_shift": [True, False]}, seeds=[1, 0, 2]))
    (shared, another) = [run for run in windows.runs if run.cell.name == "7"]
    assert {shared.id, another.id} == {run.id for run in windows.runs} & {run.id for run in shifts.runs}
    assert shared.config == next(run for run in shifts.runs if run.id == shared.id).config | {
        "model": shared.config["model"]
    }


def test_an_option_that_has_no_effect_at_this_size_is_no_difference() -> None:
    one_level = only_run("focal_levels=1")
    assert only_run("focal_levels=1", "focal_windows=5").id == one_level.id
    assert only_run("focal_levels=1", "focal_pool=mean").id == one_level.id
    assert only_run("focal_pool=mean").id != only_run().id


def test_backbone_names_of_a_sweep_mean_what_the_suite_says() -> None:
    def backbones(suite: str, name: str) -> list[str]:
        runs = plan_runs(suite=suite, factors={"net": {"A": {"backbone": name}}})
        return [run.backbone for run in runs]

    assert backbones("digits", "focal_tiny") == ["focal_micro_patch2_window7_28"]
    assert backbones("digits", "swin") == ["focal_swin_micro_patch2_window7_28"]
    assert backbones("digits", "focal_small") == ["focal_small_patch4_window7_224"]
    assert backbones("large", "focal_tiny") == ["focal_tiny_patch4_window7_224"]


def test_the_experiments_own_backbone_is_what_a_sweep_without_one_studies() -> None:
    assert only_run(factors={"window_size": [7]}).backbone == "focal_micro_patch2_window7_28"


def test_a_backbone_of_timm_passes_with_its_options_as_they_are() -> None:
    run = only_run("backbone=resnet18", "model.backbone_options.drop_rate=0.1")
    assert (run.backbone, run.stages, run.notes) == ("resnet18", None, ())
    assert run.config["model"]["init_args"]["backbone_options"] == {"drop_rate": 0.1}


def test_an_option_that_is_not_honoured_as_written_is_noted() -> None:
    run = only_run("window_size=14")
    assert "stage 2: window 14 becomes the 7 x 7 map" in run.notes
    assert run.stages is not None
    assert [stage["window"] for stage in run.stages] == [[14, 14], [7, 7], [4, 4], [2, 2]]


def test_the_rates_of_a_focal_network_are_the_ones_that_it_takes() -> None:
    from focal_lab.backbones.model import FocalTransformer

    elsewhere = {"options", "num_classes", "device", "dtype"}  # given by the model's own keys, or by nobody
    assert set(RATES) == set(signature(FocalTransformer).parameters) - elsewhere


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("backbone", "model.init_args.backbone"),
        ("window_size", "model.init_args.backbone_options.window_size"),
        ("model.lr", "model.init_args.lr"),
        ("model.init_args.lr", "model.init_args.lr"),
        ("model.class_path", "model.class_path"),
        ("data.batch_size", "data.init_args.batch_size"),
        ("data.class_path", "data.class_path"),
        ("trainer.max_epochs", "trainer.max_epochs"),
    ],
)
def test_a_setting_is_short_for_a_configuration_key(name: str, key: str) -> None:
    assert setting_key(name) == key


@pytest.mark.parametrize("name", ["lr", "model", "model.", "optimizer.lr", "seed_everything"])
def test_what_is_no_setting_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^'{name}' is not a setting: use backbone, an option of .* model\.lr, "
    ):
        setting_key(name)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"factors": {"window_sise": [7]}},
            "factors.window_sise: 'window_sise' is not a setting (did you mean window_size?)",
        ),
        ({"factors": {"net": {"A": {"lr": 7}}}}, "factors.net.A: 'lr' is not a setting: use backbone"),
        ({"set": {"lr": 7}}, "set.lr: 'lr' is not a setting: use backbone"),
        (
            {"set": {"model.lr.min": 7}},
            "set.model.lr.min: model.lr.min: lr is not a mapping in the experiment",
        ),
        (
            {"set": {"model.backbone_options.window_sise": 7}},
            "set.model.backbone_options.window_sise: window_sise is not an option of backbone "
            "focal_micro_patch2_window7_28 (did you mean window_size?)",
        ),
        (
            {"set": {"model.backbone_options": [7]}},
            "set.model.backbone_options: backbone_options: [7] is not a mapping",
        ),
        (
            {"factors": {"focal_pool": ["fc", "median"]}},
            "factors.focal_pool: focal_pool: 'median' is unknown (use fc, mean, max or conv), for median",
        ),
        (
            {"factors": {"drop_path_rate": ["high"]}},
            "factors.drop_path_rate: drop_path_rate: 'high' is not in [0, 1), for high",
        ),
        (
            {"factors": {"depths": [[2, 2]]}},
            "factors: num_heads: [1, 2, 4, 8] has 4 values for 2 stages, for 2-2",
        ),
        (
            {"factors": {"focal_levels": [2, 4]}},
            "factors.focal_levels: focal_levels: level 4 of stage 4 would pool less than one token of its "
            "window 2 x 2; use at most 3 levels there, for 4",
        ),
        (
            {"factors": {"net": {"Focal": {}}, "ring": {"wide": {"expand_sizes": 9}}}},
            "factors.ring.wide: expand_sizes: 9 is larger than the window 7 of stage 1, for Focal, wide",
        ),
        (
            {"factors": {"window_size": [7, 13]}},
            "factors.window_size: 13 is not a level of backbone focal_micro_patch2_window7_28 at 28 px "
            "(stage 1 is 14 tokens wide; use 7 or 14)",
        ),
        (
            {"factors": {"window_size": [4]}, "set": {"img_size": [56, 28]}},
            "factors.window_size: 4 is not a level of backbone focal_micro_patch2_window7_28 at 56 px "
            "(stage 1 is 14 tokens wide; use 7 or 14)",
        ),
        (
            {"factors": {"size": {"odd": {"window_size": [13, 7, 7, 7]}}}},
            "factors.size.odd: 13 is not a level of backbone focal_micro_patch2_window7_28 at 28 px",
        ),
        (
            {"set": {"expand_sizes": 9}},
            "set.expand_sizes: expand_sizes: 9 is larger than the window 7 of stage 1, for Focal",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_reported_where_it_was_made(keys: dict[str, Any], message: str) -> None:
    assert refusal(**keys).startswith(f"sweeps/small.yaml: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=3", "--set: 'lr' is not a setting: use backbone"),
        ("expand_sizes=9", "--set: expand_sizes: 9 is larger than the window 7 of stage 1, for 7"),
        ("model.backbone_options.heads=3", "--set: heads is not an option of backbone focal_micro"),
        ("model.lr.min=3", "--set: model.lr.min: lr is not a mapping in the experiment"),
    ],
)
def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(override: str, message: str) -> None:
    assert refusal(override, factors={"window_size": [7]}, set={"expand_sizes": 1}).startswith(message)


def test_the_way_out_of_a_wrong_window_is_one() -> None:
    message = refusal(suite="large", factors={"window_size": [7, 12]})
    offered = message.partition("use ")[2].rstrip(")").replace(" or ", ", ").split(", ")
    assert offered == ["4", "7", "8", "14", "28", "56"]
    for window in offered:
        assert only_run(suite="large", factors={"window_size": [int(window)]}).stages


def test_an_experiment_without_arguments_can_be_swept() -> None:
    path = write("experiments/digits/classification.yaml", DIGITS.replace(INIT, "init_args:"))
    assert load_yaml(path)["model"]["init_args"] is None
    run = only_run(factors={"window_size": [7]}, set={"backbone": "focal_tiny"})
    assert run.config["model"]["init_args"]["backbone"] == "focal_micro_patch2_window7_28"


def test_hashes_do_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1})
    assert hash_of({"a": [1, 2]}) != hash_of({"a": [2, 1]})
