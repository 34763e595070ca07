"""State dicts of other formats and sizes: conversions, warnings and errors."""

import copy
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.released_weights import read_golden
from support.swin_weights import SMALL, as_microsoft_stores, swin
from torch import Tensor, nn

import focal_lab  # noqa: F401
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.weights.fit_weights import fit_weights, load_pre_hook
from focal_lab.backbones.weights.formats import WeightsError

MICRO = "focal_micro_patch2_window7_28"


def micro(**options: Any) -> FocalTransformer:
    model: FocalTransformer = timm.create_model(MICRO, **{"num_classes": 5} | options)
    return model.eval()


def warned(load: Any, *arguments: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(*arguments, **options)
    return [str(warning.message) for warning in caught]


def same(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(own[key].equal(state[key]) for key in own)


# --- formats


def test_every_format_is_recognised_and_fully_mapped() -> None:
    golden = read_golden("shift")
    swin_model = timm.create_model("focal_swin_tiny_patch4_window7_224", focal_windows=1, **SMALL)
    for origin, state, model in (
        ("released code", golden.weights, FocalTransformer(**golden.options)),
        ("timm Swin", swin().state_dict(), swin_model),
        ("Microsoft Swin", as_microsoft_stores(swin().state_dict()), swin_model),
        ("focal-lab", micro().state_dict(), micro()),
    ):
        values, report = fit_weights(state, model)
        assert report.origin == origin
        assert list(values) == list(model.state_dict())
        assert len(report.mapped) + len(report.folded) == len(values)
        assert (report.interpolated, report.dropped, report.fresh) == ([], [], [])
        assert len(values) + len(report.buffers) == len(state)
        assert report.summary() == ""


def test_depthwise_pooling_of_the_released_code_is_recognised_by_its_shape() -> None:
    golden = read_golden("released")
    state = dict(golden.weights)
    for key in list(state):
        if "pool_layers" in key and key.endswith(".weight"):
            width = 16 * 2 ** int(key.split(".")[1])
            side = 3 if key.startswith("layers.3.") else 7
            state[key] = torch.randn(width, 1, side, side)
            state[key.replace(".weight", ".bias")] = torch.randn(width)
    model = FocalTransformer(**golden.options | {"focal_pool": "conv"})
    model.load_state_dict(state)
    pool = model.layers[3].blocks[0].attn.pools[0].conv
    assert pool.weight.equal(state["layers.3.blocks.0.pool_layers.0.weight"])
    assert pool.bias.equal(state["layers.3.blocks.0.pool_layers.0.bias"])


def test_microsofts_swin_is_timms_under_other_names() -> None:
    teacher = swin()
    model = timm.create_model("focal_swin_tiny_patch4_window7_224", focal_windows=1, **SMALL).eval()
    model.load_state_dict(as_microsoft_stores(teacher.state_dict()))
    assert same(model, teacher.state_dict())
    image = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(model(image), teacher(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.", "_orig_mod.module.", ""])
@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema", "model_ema", None])
def test_prefixes_and_wrappers_are_removed(prefix: str, wrapper: str | None) -> None:
    trained = micro()
    state: dict[str, Any] = {prefix + key: value for key, value in trained.state_dict().items()}
    if wrapper:
        state = {"epoch": 3, wrapper: state, "optimizer": {"lr": torch.ones(1)}}
    values, report = fit_weights(state, micro())
    assert all(value.equal(trained.state_dict()[key]) for key, value in values.items())
    assert report.dropped == []


def test_averaged_weights_are_preferred() -> None:
    averaged, last = micro().state_dict(), micro().state_dict()
    values, _ = fit_weights({"model": last, "model_ema": averaged}, micro())
    assert values["norm.weight"] is averaged["norm.weight"]


def test_keys_outside_the_backbone_are_dropped_and_reported() -> None:
    state = {f"model.{key}": value for key, value in micro().state_dict().items()}
    _, report = fit_weights(state | {"loss.weight": torch.ones(5)}, micro())
    assert [(change.key, change.why) for change in report.dropped] == [
        ("loss.weight", "not part of the backbone")
    ]


@pytest.mark.parametrize("state", [{}, {"epoch": 3}, {"model": {"lr": 0.1}}])
def test_a_checkpoint_without_weights_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"^there are no weights in it$"):
        fit_weights(state, micro())


# --- what is refused


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_values_that_are_not_finite_are_refused_with_their_key(value: float, dtype: torch.dtype) -> None:
    state = {key: entry.to(dtype) for key, entry in micro().state_dict().items()}
    state["layers.1.blocks.0.norm1.weight"] = torch.tensor([value] * 2 + [1.0] * 30, dtype=dtype)
    with pytest.raises(
        WeightsError, match=r"^layers\.1\.blocks\.0\.norm1\.weight: 2 of its 32 values are NaN"
    ):
        fit_weights(state, micro())


def test_large_finite_values_are_not_taken_for_infinite_ones() -> None:
    state = micro().state_dict()
    state["norm.weight"] = torch.full_like(state["norm.weight"], 3e38)
    values, _ = fit_weights(state, micro())
    assert values["norm.weight"] is state["norm.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"embed_dim": 32},
            r"patch_embed.proj.weight: shape \(16, 3, 2, 2\) is not the model's \(32, 3, 2, 2\); \d+ more",
        ),
        ({"depths": (2, 2, 2, 3)}, r"layers.3.blocks.2.norm1.weight: is missing; .* \(128,\); \d+ more"),
        ({"depths": (2, 2, 2, 1)}, r"layers.3.blocks.1\S+: is not a parameter of the model \(shape "),
        ({"num_classes": 7}, r"head.fc.weight: shape \(5, 128\) is not the model's \(7, 128\); 1 more"),
        (
            {"num_heads": (2, 2, 4, 8)},
            r"layers.0.blocks.0.attn.relative_position_bias_table: shape \(169, 1\)",
        ),
    ],
)
def test_another_architecture_is_refused_with_the_first_key_and_the_number(
    options: dict[str, Any], message: str
) -> None:
    state = micro().state_dict()
    with pytest.raises(WeightsError, match=f"^{message}"):
        fit_weights(state, micro(**options))
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key|Unexpected key"):
        micro(**options).load_state_dict(state)


def test_torch_reports_both_shapes_if_load_state_dict_cannot_fit_them() -> None:
    golden = read_golden("released")
    with pytest.raises(RuntimeError, match=r"head\.fc\.weight: .*\[10, 128\].*\[3, 128\]"):
        FocalTransformer(**golden.options | {"num_classes": 3}).load_state_dict(golden.weights)


@pytest.mark.parametrize("missing", ["head.bias", "norm.weight", "layers.1.blocks.0.attn.qkv.weight"])
def test_a_key_that_is_truly_missing_is_an_error(missing: str) -> None:
    golden = read_golden("released")
    state = {key: value for key, value in golden.weights.items() if key != missing}
    name = missing.replace("head.", r"head\.fc\.")
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\) in state_dict: "{name}"'):
        FocalTransformer(**golden.options).load_state_dict(state)


def test_one_ring_of_a_stage_that_has_others_is_missing_and_not_fresh() -> None:
    state = micro().state_dict()
    del state["layers.0.blocks.1.attn.ring_bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.0\.blocks\.1\.attn\.ring_bias"):
        micro().load_state_dict(state)


def test_a_table_of_no_square_window_is_refused_unless_it_fits() -> None:
    wide = micro(img_size=(28, 12), expand_sizes=0)  # windows of 7 x 6 tokens
    assert wide.stages_config[0].window == (7, 6)
    again = micro(img_size=(28, 12), expand_sizes=0)
    assert warned(again.load_state_dict, wide.state_dict()) == []
    with pytest.raises(
        WeightsError, match=r"bias_table: shape \(143, 1\) belongs to no square window, .* 7;"
    ):
        fit_weights(wide.state_dict(), micro())
    with pytest.raises(RuntimeError, match=r"belongs to no square window"):
        micro().load_state_dict(wide.state_dict())


def test_biases_per_window_cannot_become_biases_per_query() -> None:
    state = micro(coarse_bias="window").state_dict()
    with pytest.raises(WeightsError, match=r"^layers\.0\S+tables\.0: one bias per window .* cannot become"):
        fit_weights(state, micro())
    with pytest.raises(RuntimeError, match="one bias per window"):
        micro().load_state_dict(state)


def test_biases_per_query_are_averaged_for_a_model_with_one_per_window() -> None:
    values, report = fit_weights(
        micro().state_dict(), micro(coarse_bias="window", focal_windows=(5, 1, 1, 1))
    )
    warning = {(change.before, change.after, change.why) for change in report.interpolated}
    average = "one bias per query to their average over queries"
    assert ((1, 81), (1, 25), f"{average} and region 3 to 5") in warning
    assert ((8, 4), (8, 1), average) in warning
    assert len(report.interpolated) == 8
    assert values["layers.0.blocks.0.attn.window_bias_tables.0"].shape == (1, 25)


def test_weights_of_another_kind_of_pooling_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"pools\.0\.conv\.weight: is missing"):
        fit_weights(micro().state_dict(), micro(focal_pool="conv"))


# --- levels and rings that one side has not


def test_a_level_that_the_model_lacks_is_dropped_and_one_it_has_more_is_fresh() -> None:
    two, three = micro(), micro(focal_levels=(3, 3, 3, 2))
    values, report = fit_weights(three.state_dict(), two)
    assert {change.key.split("attn.")[1] for change in report.dropped} == {
        "coarse_bias_tables.1",
        "pools.1.linear.weight",
        "pools.1.linear.bias",
    }
    assert len(report.dropped) == 3 * 6
    assert values["layers.0.blocks.0.attn.coarse_bias_tables.0"].equal(
        three.state_dict()["layers.0.blocks.0.attn.coarse_bias_tables.0"]
    )
    own = {key: value.clone() for key, value in three.state_dict().items()}
    warning = warned(three.load_state_dict, two.state_dict())
    why = "left as initialised (there is no such coarse level to copy)"
    assert warning == [f"weights (focal-lab): 6 position biases {why}; 12 pooling weights {why}"]
    for key, value in three.state_dict().items():
        expected = own[key] if "tables.1" in key or "pools.1" in key else two.state_dict()[key]
        assert value.equal(expected), key


def test_a_level_switched_off_as_seen_already_is_found_again_by_its_size() -> None:
    options: dict[str, Any] = {"focal_levels": (3, 1, 1, 1), "focal_windows": 3}
    options["pool_sizes"] = ((3, 7), None, None, None)
    keep, exclude = micro(**options), micro(**options, level_overlap="exclude")
    assert [level.pool_size for level in keep.stages_config[0].levels] == [(3, 3), (7, 7)]
    assert [level.pool_size for level in exclude.stages_config[0].levels] == [(7, 7)]
    state = keep.state_dict()
    values, report = fit_weights(state, exclude)
    prefix = "layers.0.blocks.0.attn."
    for name in ("pools.{}.linear.weight", "coarse_bias_tables.{}"):
        assert values[prefix + name.format(0)] is state[prefix + name.format(1)]
        assert prefix + name.format(0) in [change.key for change in report.dropped]
    assert not report.interpolated


def test_a_ring_is_dropped_or_fresh_where_only_one_side_has_it() -> None:
    with_ring, without = micro(), micro(expand_sizes=0)
    _, report = fit_weights(with_ring.state_dict(), without)
    assert {change.key.split(".")[-1] for change in report.dropped} == {"ring_bias"}
    drawn = with_ring.state_dict()["layers.0.blocks.0.attn.ring_bias"].clone()
    (warning,) = warned(with_ring.load_state_dict, without.state_dict())
    assert warning.endswith("position biases left as initialised (there is no ring to copy)")
    assert with_ring.state_dict()["layers.0.blocks.0.attn.ring_bias"].equal(drawn)


# --- load_state_dict


def test_what_fits_passes_through_load_state_dict_untouched() -> None:
    trained = micro()
    state = dict(trained.state_dict())
    passed = dict(state)
    load_pre_hook(micro(), passed, "", {}, True, [], [], [])
    assert list(passed) == list(state)
    assert all(passed[key] is state[key] for key in state)
    state["norm.weight"] = torch.full_like(state["norm.weight"], torch.nan)
    model = micro()
    assert warned(model.load_state_dict, state) == []  # not ours to judge: a training resumes as it stopped
    assert model.norm.weight.isnan().all()


def test_a_part_of_a_state_dict_still_loads_without_strictness() -> None:
    trained, model = micro(), micro()
    part = {key: value for key, value in trained.state_dict().items() if key.startswith("layers.1.")}
    before = model.state_dict()["norm.weight"].clone()
    assert warned(model.load_state_dict, part, strict=False) == []
    assert all(model.state_dict()[key].equal(value) for key, value in part.items())
    assert model.state_dict()["norm.weight"].equal(before)


def test_copies_and_pickles_of_a_model_load_released_weights_into_themselves() -> None:
    golden = read_golden("released")
    model = FocalTransformer(**golden.options).eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        untouched = {key: value.clone() for key, value in model.state_dict().items()}
        other.load_state_dict(golden.weights)
        with torch.no_grad():
            torch.testing.assert_close(other(golden.image), golden.logits, rtol=0, atol=1e-4)
        assert same(model, untouched)


def test_a_module_that_contains_a_backbone_loads_released_weights_under_its_name() -> None:
    golden = read_golden("released")
    task = nn.ModuleDict({"backbone": FocalTransformer(**golden.options), "neck": nn.Linear(2, 2)}).eval()
    state = {f"backbone.{key}": value for key, value in golden.weights.items()}
    neck = {"neck.weight": torch.ones(2, 2), "neck.bias": torch.ones(2)}
    assert not any(task.load_state_dict(state | neck))
    with torch.no_grad():
        torch.testing.assert_close(task["backbone"](golden.image), golden.logits, rtol=0, atol=1e-4)
    assert task["neck"].weight.equal(torch.ones(2, 2))
    with pytest.raises(RuntimeError, match=r"Missing key.*neck\.bias"):
        task.load_state_dict(state | {"neck.weight": torch.ones(2, 2)})


def test_unknown_keys_beside_a_prefixed_backbone_are_still_unexpected() -> None:
    state = {f"model.{key}": value for key, value in micro().state_dict().items()}
    assert not any(micro().load_state_dict(state))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*loss\.weight"):
        micro().load_state_dict(state | {"loss.weight": torch.ones(5)})


def test_a_checkpoint_of_other_windows_loads_with_one_line_of_warning(tmp_path: Path) -> None:
    trained = micro(img_size=56)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "trained.pth")
    options = {
        "img_size": 56,
        "window_size": 14,
        "num_classes": 5,
        "checkpoint_path": str(tmp_path / "trained.pth"),
    }
    (warning,) = warned(timm.create_model, MICRO, **options)
    assert warning.startswith("weights (focal-lab): ")
    assert "position biases interpolated from window 7 to 14" in warning
    assert "4 pooling weights interpolated from pool size 7 to 14" in warning
    assert "\n" not in warning


def test_values_keep_their_type_and_load_into_any_other() -> None:
    state = {key: value.half() for key, value in micro().state_dict().items()}
    wide = micro(img_size=56, window_size=14)
    values, _ = fit_weights(state, wide)
    drawn = {change.key for change in fit_weights(state, wide)[1].fresh}
    assert {value.dtype for key, value in values.items() if key not in drawn} == {torch.float16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide.load_state_dict(state)
    assert wide.norm.weight.dtype == torch.float32


def test_loading_can_assign() -> None:
    golden = read_golden("released")
    with torch.device("meta"):
        model = FocalTransformer(**golden.options)
    model.load_state_dict(golden.weights, assign=True)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert model.norm.weight.equal(golden.weights["norm.weight"])


# --- another task


@pytest.mark.parametrize("classes", [3, 0])
def test_a_head_with_other_classes_stays_fresh_on_transfer(classes: int) -> None:
    trained, model = micro(), micro(num_classes=classes)
    values, report = fit_weights(trained.state_dict(), model, transfer=True)
    model.load_state_dict(values)
    assert model.norm.weight.equal(trained.norm.weight)
    changes = report.fresh if classes else report.dropped
    assert [change.key for change in changes] == ["head.fc.weight", "head.fc.bias"]
    with pytest.raises(WeightsError, match=r"^head\.fc\.weight: "):
        fit_weights(trained.state_dict(), model)


def test_a_head_is_taken_whole_or_not_at_all() -> None:
    state = micro().state_dict()
    del state["head.fc.bias"]
    model = micro()
    values, report = fit_weights(state, model, transfer=True)
    assert {change.key for change in report.fresh} == {"head.fc.weight", "head.fc.bias"}
    assert values["head.fc.weight"].equal(model.state_dict()["head.fc.weight"])
    assert not any(change.key.startswith("head") for change in report.mapped)


def test_a_model_cut_for_features_takes_what_it_still_has() -> None:
    trained, cut = micro(), micro()
    cut.prune_intermediate_layers([0, 1], prune_norm=True)
    values, report = fit_weights(trained.state_dict(), cut, transfer=True)
    assert list(values) == list(cut.state_dict())
    assert {change.key.split(".")[0] for change in report.dropped} == {"layers", "norm", "head"}
    assert {change.why for change in report.dropped} == {"the model ends before it"}
