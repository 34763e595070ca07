"""Factors whose levels differ in several settings are found; what follows from another setting is not."""

import subprocess
import sys
import time
from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.sweep.plan.confounds import Confound
from focal_lab.sweep.plan.plan import confounds_of, make_plan

pytestmark = pytest.mark.usefixtures("project")

NETWORKS = {"Swin-Tiny": {"backbone": "swin"}, "Focal-Tiny": {"backbone": "focal_tiny"}}
ATTENTION = {"focal_levels": (1, 2), "expand_sizes": (0, 3), "use_shift": (True, False)}


def found(suite: str = "digits", **keys: Any) -> tuple[Confound, ...]:
    return confounds_of(make_plan(write_sweep(**({"seeds": 1} | keys)), suite=suite))


def only(**keys: Any) -> Confound:
    (confound,) = found(**keys)
    return confound


def test_swin_and_focal_differ_in_downsampling_besides_attention() -> None:
    confound = only(factors={"backbone": NETWORKS, "window_size": [7, 14]})
    assert confound.factor == "backbone"
    assert confound.levels == ("Swin-Tiny", "Focal-Tiny")
    assert confound.settings == ATTENTION | {"downsample": ("merge", "conv")}
    assert not confound.chosen
    assert confound.sentence() == (
        "backbone: Swin-Tiny and Focal-Tiny differ in several settings: focal_levels (1, 2), "
        "expand_sizes (0, 3), use_shift (true, false), downsample (merge, conv); an effect of backbone is "
        "not the effect of one of them."
    )


def test_a_report_prints_labels_as_its_table_does() -> None:
    sentence = only(factors={"backbone": NETWORKS}).sentence({"Focal-Tiny": "Focal-Tiny (micro)"})
    assert sentence.startswith("backbone: Swin-Tiny and Focal-Tiny (micro) differ")


def test_what_another_factor_sets_is_not_a_difference_between_the_levels() -> None:
    factors = {"backbone": NETWORKS, "downsample": ["merge", "conv"]}
    assert only(factors=factors).settings == ATTENTION


def test_the_shipped_presets_differ_in_the_same_options_at_224_px() -> None:
    factors = {"backbone": {"S": {"backbone": "focal_swin_tiny"}, "F": {"backbone": "focal_tiny"}}}
    confound = only(suite="large", factors=factors)
    assert confound.settings == ATTENTION | {"downsample": ("merge", "conv")}


@pytest.mark.parametrize(
    "factor",
    [
        # 14 is the whole first map: the ring and pooled tokens change, too
        {"window_size": [7, 14]},
        {"depths": {"two": {"depths": [2, 2, 2, 2]}, "four": {"depths": [2, 2, 4, 2]}}},
        # without levels there is nothing to pool
        {"focal_levels": [1, 2, 3]},
        {"rate": {"low": {"model.lr": 0.001}, "high": {"model.lr": 0.003}}},
        {"border": ["mask", "wrap"]},
    ],
    ids=lambda factor: next(iter(factor)),
)
def test_levels_that_differ_in_one_setting_are_not_confounded(factor: dict[str, Any]) -> None:
    assert found(factors=factor) == ()


def test_an_option_without_effect_in_one_of_two_networks_is_not_a_difference() -> None:
    pooled = {"none": {"focal_levels": 1, "focal_pool": "mean"}, "fc": {"focal_levels": 2}}
    assert found(factors={"pooling": pooled}) == ()
    # pooling by a mean has no weights to initialise
    start = {"A": {"focal_pool": "mean", "pool_init": "mean"}, "B": {"focal_pool": "fc"}}
    assert found(factors={"pooling": start}) == ()
    # a window that covers its map has no ring
    ring = {"A": {"window_size": 14, "expand_sizes": 0}, "B": {"window_size": 7}}
    assert found(factors={"window": ring}) == ()


def test_a_scalar_and_equal_values_of_all_stages_are_the_same() -> None:
    levels = {"A": {"window_size": 7, "use_shift": True}, "B": {"window_size": [7, 7, 7, 7]}}
    assert found(factors={"net": levels}) == ()


def test_several_options_that_the_file_sets_are_its_own_choice() -> None:
    levels = {"Window": {"focal_levels": 1, "expand_sizes": 0}, "Both": {}}
    confound = only(factors={"interactions": levels})
    assert confound.chosen
    assert confound.sentence() == (
        "interactions: Window and Both differ in several settings, as the sweep file has it: "
        "focal_levels (1, 2), expand_sizes (0, 3)."
    )


def test_of_many_levels_only_those_that_differ_in_several_settings_count() -> None:
    levels = {
        "Window": {"focal_levels": 1, "expand_sizes": 0},
        "+Local": {"focal_levels": 1},
        "+Global": {"expand_sizes": 0},
        "Both": {},
    }
    confound = only(factors={"interactions": levels})
    assert (confound.all_levels, confound.levels) == (False, ("Window", "+Local", "+Global", "Both"))
    assert confound.sentence().startswith("interactions: some levels differ in several settings, as")
    deep = {
        label: {"depths": [2, 2, depth, 2], "mlp_ratio": depth}
        for label, depth in zip("abc", (2, 4, 6), strict=True)
    }
    assert only(factors={"net": deep}).sentence().startswith("net: levels differ in several settings")
    assert only(factors={"net": deep}).settings["depths"] == ([2, 2, 2, 2], [2, 2, 4, 2], [2, 2, 6, 2])


def test_settings_of_training_and_data_count_beside_the_network() -> None:
    levels = {
        "slow": {"backbone": "focal_tiny", "model.lr": "0.003"},  # the experiment's, as a word
        "fast": {"backbone": "focal_tiny", "window_size": 14, "model.lr": 0.01, "data.batch_size": 32},
    }
    confound = only(factors={"recipe": levels})
    assert confound.settings == {
        "window_size": (7, 14),
        "model.lr": (0.003, 0.01),
        "data.batch_size": (64, 32),
    }
    assert confound.chosen


def test_a_backbone_with_a_setting_that_its_level_adds_is_no_choice_of_the_file_alone() -> None:
    levels = {"Swin": {"backbone": "swin"}, "Focal": {"backbone": "focal_tiny", "model.lr": 0.01}}
    confound = only(factors={"backbone": levels})
    assert confound.settings["model.lr"] == (0.003, 0.01)
    assert not confound.chosen


def test_backbones_that_are_not_ours_differ_in_their_name() -> None:
    levels = {"R": {"backbone": "resnet18"}, "F": {"backbone": "focal_tiny"}}
    assert found(factors={"backbone": levels}) == ()
    levels["R"]["trainer.max_epochs"] = 5  # type: ignore[assignment]
    confound = only(factors={"backbone": levels})
    assert confound.settings == {
        "backbone": ("resnet18", "focal_micro_patch2_window7_28"),
        "trainer.max_epochs": (5, 2),
    }
    # long names are not printed
    assert "differ in several settings: backbone, trainer.max_epochs (5, 2); an" in confound.sentence()


def test_a_search_compares_its_factors_and_not_its_ranges() -> None:
    confound = only(
        factors={"backbone": NETWORKS},
        search={"trials": 4, "objectives": ["top1"], "ranges": {"model.lr": {"low": 0.001, "high": 0.1}}},
        tasks=["classification"],
    )
    assert confound.settings == ATTENTION | {"downsample": ("merge", "conv")}


def test_cells_by_hand_that_differ_in_two_factors_are_not_compared() -> None:
    cells = [{"backbone": "Swin-Tiny", "window_size": 7}, {"backbone": "Focal-Tiny", "window_size": 14}]
    assert found(factors={"backbone": NETWORKS, "window_size": [7, 14]}, cells=cells) == ()


def test_thousands_of_cells_are_compared_in_a_moment() -> None:
    rates = {f"lr{i}": {"model.lr": 0.001 * (i + 1)} for i in range(500)}
    plan = make_plan(write_sweep(factors={"backbone": NETWORKS, "window_size": [7, 14], "rate": rates}))
    start = time.process_time()
    assert [confound.factor for confound in confounds_of(plan)] == ["backbone"]
    assert time.process_time() - start < 1


def test_no_torch_is_needed() -> None:
    write_sweep(factors={"backbone": NETWORKS})
    code = (
        "import sys; from pathlib import Path; from focal_lab.sweep.plan.plan import confounds_of, make_plan;"
        "import focal_lab.sweep.plan.confounds; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
