"""Every rule of the options and presets, and the resolved stages."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import (
    OPTION_NAMES,
    FocalOptions,
    StageConfig,
    identity,
    image_size,
    make_options,
    per_stage,
)
from focal_lab.backbones.presets import PRESETS, find_preset, preset_options


def stages(**options: Any) -> tuple[StageConfig, ...]:
    return make_options(options).stages


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windows": 7}, r"^windows is not an option of a focal backbone \(use img_size, .* or attention\)"),
        ({"focal_pool": "sum"}, r"^focal_pool: 'sum' is unknown \(use fc, mean, max or conv\)"),
        ({"pool_init": "zero"}, r"^pool_init: 'zero' is unknown \(use released or mean\)"),
        ({"coarse_bias": "token"}, r"^coarse_bias: 'token' is unknown \(use query or window\)"),
        ({"level_overlap": "drop"}, r"^level_overlap: 'drop' is unknown \(use keep or exclude\)"),
        ({"border": "reflect"}, r"^border: 'reflect' is unknown \(use wrap or mask\)"),
        ({"downsample": "pool"}, r"^downsample: 'pool' is unknown \(use conv or merge\)"),
        ({"attention": "flash"}, r"^attention: 'flash' is unknown \(use fast or reference\)"),
        ({"embed_dim": [96]}, r"^embed_dim: \[96\] is not an integer of at least 1"),
        ({"embed_dim": 0}, r"^embed_dim: 0 is not an integer of at least 1"),
        ({"patch_size": 2.0}, r"^patch_size: 2\.0 is not an integer of at least 1"),
        ({"in_chans": 0}, r"^in_chans: 0 is not an integer of at least 1"),
        ({"img_size": (224, 0)}, r"^img_size: 0 is not an integer of at least 1"),
        ({"img_size": (224, 224, 3)}, r"^img_size: \[224, 224, 3\] is neither one size nor height"),
        ({"depths": 2}, r"^depths: 2 is not a list of integers"),
        ({"depths": ()}, r"^depths: is empty"),
        ({"depths": (2, 0, 6, 2)}, r"^depths: 0 is not an integer of at least 1"),
        ({"depths": (2, True, 6, 2)}, r"^depths: True is not an integer of at least 1"),
        ({"num_heads": (3, 6)}, r"^num_heads: \[3, 6\] has 2 values for 4 stages"),
        ({"num_heads": 5}, r"^num_heads: 5 heads do not divide the width 96 of stage 1"),
        ({"window_size": 0}, r"^window_size: 0 is not an integer of at least 1"),
        ({"window_size": "7"}, r"^window_size: '7' is not an integer of at least 1"),
        ({"focal_levels": (2, 2, 2)}, r"^focal_levels: \[2, 2, 2\] has 3 values for 4 stages"),
        ({"focal_levels": 0}, r"^focal_levels: 0 is not an integer of at least 1"),
        ({"focal_windows": (7, 5, 4, 1)}, r"^focal_windows: 4 is even in stage 3; a region must be odd"),
        ({"expand_sizes": -1}, r"^expand_sizes: -1 is not an integer of at least 0"),
        ({"expand_sizes": 8}, r"^expand_sizes: 8 is larger than the window 7 of stage 1"),
        ({"use_shift": (True, False)}, r"^use_shift: \[True, False\] has 2 values for 4 stages"),
        ({"use_shift": "false"}, r"^use_shift: 'false' is neither true nor false"),
        ({"use_shift": (True, 1, True, True)}, r"^use_shift: 1 is neither true nor false"),
        ({"use_layerscale": "no"}, r"^use_layerscale: 'no' is neither true nor false"),
        ({"use_conv_embed": True, "patch_size": 8}, r"^use_conv_embed: needs patch_size 2 or 4, not 8"),
        ({"mlp_ratio": 0}, r"^mlp_ratio: 0 is not a number above 0"),
        ({"layerscale_value": "small"}, r"^layerscale_value: 'small' is not a number above 0"),
        ({"drop_path_rate": 1.0}, r"^drop_path_rate: 1\.0 is not in \[0, 1\)"),
        ({"drop_path_rate": -0.1}, r"^drop_path_rate: -0\.1 is not in \[0, 1\)"),
        ({"drop_path_rate": "0.1"}, r"^drop_path_rate: '0\.1' is not in \[0, 1\)"),
        (
            {"focal_levels": (2, 2, 4, 2), "window_size": (7, 7, 3, 7)},
            r"^focal_levels: level 4 of stage 3 would pool less than one token of its window 3 x 3; "
            r"use at most 3 levels there",
        ),
        ({"pool_sizes": (7, 7)}, r"^pool_sizes: \[7, 7\] has 2 values for 4 stages"),
        ({"pool_sizes": 0}, r"^pool_sizes: 0 is not an integer of at least 1"),
        (
            {"pool_sizes": (None, (7, 3), None, None)},
            r"^pool_sizes: 2 sizes for 1 coarse levels in stage 2",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_option_and_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_options(options)


def test_lists_tuples_and_scalars_say_the_same() -> None:
    assert stages(window_size=7) == stages(window_size=(7, 7, 7, 7)) == stages(window_size=[7, 7, 7, 7])
    assert stages(use_shift=True) == stages(use_shift=[True] * 4)
    assert stages(img_size=224) == stages(img_size=(224, 224)) == stages(img_size=[224, 224])
    assert stages(pool_sizes=7) == stages(pool_sizes=((7,),) * 4) == stages(pool_sizes=None)


def test_a_list_gives_each_stage_its_own_value() -> None:
    resolved = stages(window_size=(8, 7, 5, 3), expand_sizes=(4, 3, 2, 1), focal_levels=(3, 2, 1, 2))
    assert [stage.window for stage in resolved] == [(8, 8), (7, 7), (5, 5), (3, 3)]
    assert [stage.expand for stage in resolved] == [(4, 4), (3, 3), (2, 2), (1, 1)]
    assert [len(stage.levels) for stage in resolved] == [2, 1, 0, 1]


def test_per_stage_repeats_a_scalar_and_keeps_a_list() -> None:
    assert per_stage("window_size", 7, 3) == (7, 7, 7)
    assert per_stage("border", "wrap", 2) == ("wrap", "wrap")
    assert per_stage("window_size", [7, 14], 2) == (7, 14)


def test_image_size_is_height_and_width() -> None:
    assert image_size(224) == (224, 224)
    assert image_size((112, 224)) == (112, 224)


def test_focal_tiny_sees_the_papers_number_of_keys() -> None:
    assert [stage.keys_per_window for stage in stages()] == [218, 194, 178, 50]
    assert [stage.fine_keys for stage in stages()] == [169, 169, 169, 49]
    assert [stage.map_size for stage in stages()] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [stage.dim for stage in stages()] == [96, 192, 384, 768]


def test_coarse_levels_halve_the_sub_window_and_widen_the_region() -> None:
    level_1, level_2, level_3 = stages(focal_levels=4)[0].levels
    assert (level_1.pool_size, level_1.cells, level_1.region) == ((7, 7), (1, 1), (7, 7))
    assert (level_2.pool_size, level_2.cells, level_2.region) == ((3, 3), (2, 2), (8, 8))
    assert (level_3.pool_size, level_3.cells, level_3.region) == ((1, 1), (4, 4), (10, 10))


def test_pool_sizes_replace_the_halving() -> None:
    level_1, level_2 = stages(focal_levels=3, pool_sizes=((2, 3), None, None, None))[0].levels
    assert (level_1.pool_size, level_1.cells, level_1.region) == ((2, 2), (3, 3), (9, 9))
    assert (level_2.pool_size, level_2.cells, level_2.region) == ((3, 3), (2, 2), (8, 8))


def test_a_window_larger_than_the_map_becomes_the_map_with_a_note() -> None:
    last = stages(window_size=14, use_shift=True)[3]
    assert (last.window, last.expand, last.shift) == ((7, 7), (0, 0), (0, 0))
    assert last.notes == (
        "window 14 becomes the 7 x 7 map",
        "expansion is off: the window covers the map",
        "shift is off: the window covers the map",
    )


def test_a_window_as_large_as_the_map_switches_expansion_and_shift_off() -> None:
    third = stages(window_size=14, use_shift=True)[2]
    assert (third.window, third.expand, third.shift) == ((14, 14), (0, 0), (0, 0))
    assert not any("becomes" in note for note in third.notes)


def test_a_window_of_one_token_cannot_be_shifted() -> None:
    first = stages(window_size=1, focal_levels=1, expand_sizes=0, use_shift=True)[0]
    assert (first.window, first.shift) == ((1, 1), (0, 0))
    assert first.notes == ("shift is off: the window is one token",)


def test_each_direction_of_a_rectangle_is_cut_to_the_map_by_itself() -> None:
    third = stages(img_size=(80, 224), use_shift=True)[2]
    assert (third.map_size, third.window) == ((5, 14), (5, 7))
    assert (third.expand, third.shift) == ((0, 3), (0, 3))


def test_an_option_that_is_honoured_leaves_no_note() -> None:
    assert [stage.notes for stage in stages(img_size=448, use_shift=True)] == [()] * 4


def test_padding_a_shift_without_a_second_block_and_a_cut_pool_size_are_noted() -> None:
    padded = stages(img_size=(240, 224))[0]
    assert (padded.map_size, padded.canvas_size) == ((60, 56), (63, 56))
    assert padded.notes == ("map 60 x 56 is padded to 63 x 56",)
    lonely = stages(depths=(1, 2, 6, 2), use_shift=True)[0]
    assert (lonely.shift, lonely.notes) == ((0, 0), ("shift is off: the stage has one block",))
    cut = stages(pool_sizes=(14, None, None, None))[0]
    assert cut.levels[0].pool_size == (7, 7)
    assert cut.notes == ("pool size 14 is cut to the window 7 x 7",)


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        ({"border": "wrap"}, [(27, 29), (13, 14), (6, 7), (3, 3)]),
        ({"border": "mask"}, [(27, 29), (14, 15), (7, 8), (4, 4)]),
        ({"border": "wrap", "downsample": "merge"}, [(27, 29), (14, 15), (7, 8), (4, 4)]),
        ({"border": "wrap", "use_conv_embed": True}, [(27, 29), (14, 15), (7, 8), (4, 4)]),
    ],
)
def test_claimed_map_sizes_are_those_that_the_network_computes(
    options: dict[str, Any], maps: list[tuple[int, int]]
) -> None:
    small = {"img_size": (106, 115), "embed_dim": 8, "num_heads": 1, "depths": (1, 1, 1, 1)}
    model = FocalTransformer(num_classes=0, **small, **options)
    assert [stage.map_size for stage in model.stages_config] == maps
    features = model.forward_intermediates(torch.zeros(1, 3, 106, 115), intermediates_only=True)
    assert [tuple(feature.shape[2:]) for feature in features] == maps


def test_a_map_of_one_row_stays_one_row_and_halves_its_columns() -> None:
    narrow = {"img_size": (4, 28), "embed_dim": 8, "num_heads": 1, "depths": (1, 1, 1)}
    model = FocalTransformer(num_classes=0, focal_windows=1, **narrow)
    assert [stage.map_size for stage in model.stages_config] == [(1, 7), (1, 3), (1, 1)]
    features = model.forward_intermediates(torch.zeros(1, 3, 4, 28), intermediates_only=True)
    assert [tuple(feature.shape[2:]) for feature in features] == [(1, 7), (1, 3), (1, 1)]


SMALL = {
    "img_size": 28,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (2, 1),
    "num_heads": (1, 2),
    "window_size": 7,
    "focal_windows": 3,
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"window_size": (7, 7)}, {"window_size": (7, 14)}),
        ({"expand_sizes": (3, 3)}, {"expand_sizes": (3, 0)}),
        ({"use_shift": (True, False)}, {"use_shift": (True, True)}),
        ({"pool_sizes": None}, {"pool_sizes": 7}),
        ({"focal_levels": 1, "focal_windows": 3}, {"focal_levels": 1, "focal_windows": 5}),
        ({"focal_levels": 1, "focal_pool": "fc"}, {"focal_levels": 1, "focal_pool": "max"}),
        ({"layerscale_value": 0.1}, {"layerscale_value": 0.2}),
        ({"downsample": "merge", "use_pre_norm": True}, {"downsample": "merge", "use_pre_norm": False}),
        ({"expand_sizes": 0, "border": "wrap"}, {"expand_sizes": 0, "border": "mask"}),
        (
            {"expand_sizes": 0, "focal_levels": 1, "use_shift": True, "border": "wrap"},
            {"expand_sizes": 0, "focal_levels": 1, "use_shift": True, "border": "mask"},
        ),
    ],
)
def test_options_of_the_same_network_share_their_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert outputs(one).equal(outputs(other))
    assert identity(make_options(SMALL | one)) == identity(make_options(SMALL | other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"border": "wrap"}, {"border": "mask"}),
        ({"expand_sizes": 0, "window_size": 5, "border": "wrap"}, {"expand_sizes": 0, "window_size": 5}),
        (
            {"expand_sizes": 0, "use_shift": True, "border": "wrap"},
            {"expand_sizes": 0, "use_shift": True},
        ),
        ({"expand_sizes": 0, "focal_levels": 3, "border": "wrap"}, {"expand_sizes": 0, "focal_levels": 3}),
        ({"use_shift": True}, {"use_shift": False}),
        ({"focal_pool": "mean"}, {"focal_pool": "max"}),
        (
            {"use_layerscale": True, "layerscale_value": 0.1},
            {"use_layerscale": True, "layerscale_value": 0.2},
        ),
    ],
)
def test_options_that_compute_something_else_differ_in_identity(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    one, other = {"border": "mask"} | one, {"border": "mask"} | other
    assert not torch.allclose(outputs(one), outputs(other), atol=1e-4)
    assert identity(make_options(SMALL | one)) != identity(make_options(SMALL | other))


def outputs(options: dict[str, Any]) -> torch.Tensor:
    """Logits with weights that depend only on their order and shapes."""
    model = FocalTransformer(num_classes=3, **SMALL | options)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if not torch.equal(parameter, torch.full_like(parameter, model.options.layerscale_value)):
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.randn(2, 3, 28, 28))
    return logits


CHANGES: dict[str, Any] = {
    "img_size": 448,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 48,
    "depths": (2, 2, 2, 2),
    "num_heads": (3, 3, 3, 3),
    "window_size": 14,
    "focal_levels": 1,
    "focal_windows": 1,
    "expand_sizes": 2,
    "pool_sizes": 3,
    "focal_pool": "mean",
    "pool_init": "mean",
    "coarse_bias": "window",
    "level_overlap": "exclude",
    "use_shift": True,
    "use_conv_embed": True,
    "use_layerscale": True,
    "use_pre_norm": True,
    "downsample": "merge",
    "border": "mask",
    "mlp_ratio": 3.0,
    "qkv_bias": False,
    "drop_path_rate": 0.1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_that_changes_focal_tiny_changes_its_identity(name: str) -> None:
    assert identity(make_options({name: CHANGES[name]})) != identity(FocalOptions())


def test_the_changes_above_cover_every_option_of_the_function() -> None:
    # `layerscale_value` alone does nothing, and `attention` computes the same function
    assert set(OPTION_NAMES) - set(CHANGES) == {"layerscale_value", "attention"}


def test_the_newer_options_do_not_rename_runs_that_do_not_use_them() -> None:
    described = identity(FocalOptions())
    assert not {"coarse_bias", "pool_init"} & described.keys()
    assert all("hidden" not in level for stage in described["stages"] for level in stage["levels"])


@pytest.mark.parametrize(
    "options",
    [
        {"focal_levels": 1, "coarse_bias": "window", "pool_init": "mean", "level_overlap": "exclude"},
        {"focal_pool": "max", "pool_init": "mean"},
    ],
)
def test_options_of_pooled_tokens_do_nothing_where_there_are_none(options: dict[str, Any]) -> None:
    plain = {name: options[name] for name in ("focal_levels", "focal_pool") if name in options}
    assert identity(make_options(options)) == identity(make_options(plain))


def test_excluded_overlap_hides_the_cells_that_the_fine_level_shows() -> None:
    kept = stages(focal_levels=3, level_overlap="keep", img_size=896)
    excluded = stages(focal_levels=3, level_overlap="exclude", img_size=896)
    # Stage 1, tokens counted from the window's first: the fine level shows -3 to 9, the 8 x 8 cells of 3
    # tokens begin at -9 and reach 14, and of the 7 x 7 cells of 7 tokens those at -7, 0 and 7 lie in that.
    first, second = excluded[0].levels
    assert [level.pool_size for level in (first, second)] == [(7, 7), (3, 3)]
    assert first.hidden == tuple(row * 7 + column for row in (2, 3, 4) for column in (2, 3, 4))
    assert second.hidden == tuple(row * 8 + column for row in range(2, 6) for column in range(2, 6))
    hidden = len(first.hidden) + len(second.hidden)
    assert excluded[0].keys_per_window == kept[0].keys_per_window - hidden
    assert excluded[0].keys == kept[0].keys


def test_a_level_that_finer_levels_cover_is_dropped_with_a_note() -> None:
    last = stages(level_overlap="exclude")[-1]
    assert last.levels == ()
    assert "the level of pool size 7 is off: finer levels see all of it" in last.notes
    assert last.keys_per_window == 49


def test_an_identity_is_json_and_survives_it() -> None:
    described = identity(make_options({"use_shift": True, "focal_levels": 3}))
    assert json.loads(json.dumps(described)) == described


def test_notes_do_not_make_two_stages_different() -> None:
    stage = stages()[0]
    assert stage == replace(stage, notes=("said otherwise",))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves_and_is_found_by_its_short_name(name: str) -> None:
    assert len(preset_options(name).stages) == (2 if "shallow" in name else 4)
    assert find_preset(name) == name
    assert find_preset(name.split("_patch")[0]) == name


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "focal", "focal_tin", "focal_tiny_patch4", ""]
)
def test_a_name_that_is_not_a_preset_is_not_found(name: str) -> None:
    assert find_preset(name) is None
    with pytest.raises(KeyError):
        preset_options(name)


def test_preset_options_take_overrides_and_refuse_unknown_ones() -> None:
    assert preset_options("focal_tiny", {"window_size": 14}) == replace(FocalOptions(), window_size=14)
    with pytest.raises(ValueError, match=r"^window is not an option"):
        preset_options("focal_tiny", {"window": 14})


def test_the_shallow_network_sees_one_cell_per_window_and_has_no_global_stage() -> None:
    first, second = preset_options("focal_shallow").stages
    assert (first.map_size, first.window, first.expand) == ((8, 8), (2, 2), (1, 1))
    assert (second.map_size, second.window, second.expand) == ((4, 4), (1, 1), (0, 0))
    for stage in (first, second):
        assert [(level.pool_size, level.region) for level in stage.levels] == [(stage.window, (7, 7))]


def test_the_mini_network_has_as_many_windows_per_stage_as_the_papers_at_224_px() -> None:
    def windows(name: str) -> list[int]:
        stages = preset_options(name).stages
        return [stage.canvas_size[0] * stage.canvas_size[1] // stage.window[0] ** 2 for stage in stages]

    assert windows("focal_mini") == windows("focal_tiny") == [64, 16, 4, 1]
    assert [stage.window for stage in preset_options("focal_mini").stages] == [(4, 4)] * 4


def test_swin_presets_are_focal_presets_without_focal_levels() -> None:
    for name in (name for name in PRESETS if name.startswith("focal_swin_")):
        focal, swin = preset_options(name.replace("swin_", "")), preset_options(name)
        plain = {"focal_levels": 1, "expand_sizes": 0, "use_shift": True, "downsample": "merge"}
        assert swin == replace(focal, **plain)
