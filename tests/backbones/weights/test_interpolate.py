"""Resizing preserves identity, constants, linear functions and positions."""

import itertools
import warnings
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from timm.layers import resize_rel_pos_bias_table_simple
from torch import Tensor, nn

import focal_lab  # noqa: F401
from focal_lab.backbones import geometry
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.weights import interpolate

BOTH = pytest.mark.parametrize("interpolation", interpolate.INTERPOLATIONS)
TINY = "focal_tiny_patch4_window7_224"
NARROW = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (3, 3, 6, 6), "num_classes": 5}


def narrow(**options: Any) -> FocalTransformer:
    torch.manual_seed(0)
    model: FocalTransformer = timm.create_model(TINY, **NARROW | options)
    return model.eval()


def resized(model: FocalTransformer, *arguments: Any, **options: Any) -> list[str]:
    """Set the model's size and return its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.set_input_size(*arguments, **options)
    return [str(warning.message) for warning in caught]


@BOTH
@pytest.mark.parametrize("size", [(13, 13), (20, 27), (5, 30)])
def test_an_image_is_resampled_as_by_torch(interpolation: str, size: tuple[int, int]) -> None:
    image = torch.randn(3, 13, 9)
    expected = F.interpolate(image[None], size=size, mode=interpolation, align_corners=False)[0]
    torch.testing.assert_close(interpolate.resize_image(image, size, interpolation), expected)


def test_swins_table_is_resampled_as_by_timm() -> None:
    for old, new in ((7, 14), (12, 7), (7, 8)):
        table = torch.randn((2 * old - 1) ** 2, 4)
        expected = resize_rel_pos_bias_table_simple(table, (new, new), ((2 * new - 1) ** 2, 4))
        ours = interpolate.resize_own_table(table, (old, old), (new, new), "bicubic")
        torch.testing.assert_close(ours, expected)


@BOTH
def test_what_keeps_its_size_is_the_same_tensor(interpolation: str) -> None:
    own, ring = torch.randn(169, 2), torch.randn(2, 49, 120)
    table, pool = torch.randn(2, 169), torch.randn(1, 49)
    assert interpolate.resize_own_table(own, (7, 7), (7, 7), interpolation) is own
    assert interpolate.resize_ring(ring, own, (7, 7), (3, 3), (7, 7), (3, 3), interpolation) is ring
    assert interpolate.resize_coarse_table(table, (13, 13), (13, 13), interpolation) is table
    assert interpolate.resize_pooling(pool, (7, 7), (7, 7), interpolation) is pool


@BOTH
@pytest.mark.parametrize(("window", "expand"), [((14, 14), (6, 6)), ((5, 9), (2, 4)), ((7, 7), (1, 1))])
def test_constant_biases_stay_constant(
    interpolation: str, window: tuple[int, int], expand: tuple[int, int]
) -> None:
    own, ring = torch.full((169, 2), 0.7), torch.full((2, 49, 120), 0.7)
    for table in (
        interpolate.resize_own_table(own, (7, 7), window, interpolation),
        interpolate.resize_ring(ring, own, (7, 7), (3, 3), window, expand, interpolation),
        interpolate.resize_coarse_table(torch.full((2, 169), 0.7), (13, 13), (20, 11), interpolation),
    ):
        torch.testing.assert_close(table, torch.full_like(table, 0.7))


def linear_fields(window: int, expand: int) -> tuple[Tensor, Tensor]:
    """Own table (T, 1) and ring (1, Q, R) of biases linear in the distance of query and key, in windows."""
    side = 2 * window - 1
    rows = torch.arange(side).double().sub(window - 1)[:, None].expand(side, side)
    own = ((rows + 2 * rows.t()) / window).reshape(-1, 1)
    query = torch.cartesian_prod(*[torch.arange(window).double()] * 2)
    key = torch.cartesian_prod(*[torch.arange(-expand, window + expand).double()] * 2)
    distance = (query[:, None] - key[None]) / window
    bias = distance[..., 0] + 2 * distance[..., 1]
    return own, bias[:, torch.as_tensor(geometry.ring_positions((window,) * 2, (expand,) * 2))][None]


def test_biases_linear_in_the_distance_stay_so_inside() -> None:
    own, ring = linear_fields(7, 3)
    _, expected_ring = linear_fields(14, 6)
    new_own = interpolate.resize_own_table(own, (7, 7), (14, 14), "bilinear").view(27, 27)
    # the table has 13 and 27 rows for 7 and 14 windows: its slope is that of the image
    slope = (new_own[2:-2] - new_own[1:-3])[:, 2:-2]
    torch.testing.assert_close(slope, torch.full_like(slope, 13 / 27 / 7))
    new_ring = interpolate.resize_ring(ring, own, (7, 7), (3, 3), (14, 14), (6, 6), "bilinear")
    inner_queries = torch.zeros(14, 14, dtype=torch.bool)
    inner_queries[1:-1, 1:-1] = True  # beyond the outermost centres the edge's value goes on
    frame = torch.zeros(26, 26, dtype=torch.bool)
    frame[1:-1, 1:-1] = True
    inner_keys = frame.flatten()[torch.as_tensor(geometry.ring_positions((14, 14), (6, 6)))]
    chosen = new_ring[:, inner_queries.flatten()][:, :, inner_keys]
    torch.testing.assert_close(chosen, expected_ring[:, inner_queries.flatten()][:, :, inner_keys])
    assert chosen.std() > 0.5


@BOTH
def test_a_frame_that_grows_in_proportion_is_resampled_as_one_image(interpolation: str) -> None:
    own, ring = torch.randn(49, 1), torch.randn(1, 16, 48)
    frame = torch.empty(16, 64)
    mask = torch.as_tensor(geometry.ring_positions((4, 4), (2, 2)))
    frame[:, mask] = ring[0]
    frame[:, ~mask] = own[:, 0][torch.as_tensor(geometry.position_index((4, 4), (4, 4)))]
    keys = F.interpolate(frame.view(1, 16, 8, 8), (16, 16), mode=interpolation)
    queries = keys.view(4, 4, 256).permute(2, 0, 1)[None]
    expected = F.interpolate(queries, (8, 8), mode=interpolation)[0].flatten(1).t()
    ours = interpolate.resize_ring(ring, own, (4, 4), (2, 2), (8, 8), (4, 4), interpolation)
    torch.testing.assert_close(ours[0], expected[:, torch.as_tensor(geometry.ring_positions((8, 8), (4, 4)))])


@BOTH
def test_a_narrower_ring_loses_its_outer_keys_and_changes_nothing_else(interpolation: str) -> None:
    own, ring = torch.randn(169, 2), torch.randn(2, 49, 120)
    narrower = interpolate.resize_ring(ring, own, (7, 7), (3, 3), (7, 7), (1, 1), interpolation)
    frame = torch.full((2, 49, 169), torch.nan)
    frame[:, :, torch.as_tensor(geometry.ring_positions((7, 7), (3, 3)))] = ring
    inner = frame.view(2, 49, 13, 13)[:, :, 2:-2, 2:-2].flatten(2)
    assert narrower.equal(inner[:, :, torch.as_tensor(geometry.ring_positions((7, 7), (1, 1)))])


@BOTH
@pytest.mark.parametrize("shape", [(1, 49), (6, 1, 7, 7)])
def test_a_constant_map_is_pooled_to_the_same_token(interpolation: str, shape: tuple[int, ...]) -> None:
    weight = torch.full(shape, 1 / 49)
    for size in ((14, 14), (3, 3), (4, 6)):
        new = interpolate.resize_pooling(weight, (7, 7), size, interpolation)
        assert new.numel() == weight.numel() // 49 * size[0] * size[1]
        torch.testing.assert_close(new, torch.full_like(new, 1 / (size[0] * size[1])))


def test_the_average_over_queries_is_the_mean_of_what_the_queries_saw() -> None:
    table = torch.randn(3, 11 * 11)
    seen_NQK = table[:, torch.as_tensor(geometry.position_index((7, 7), (5, 5)))]
    averaged = interpolate.average_over_queries(table, (7, 7), (5, 5))
    torch.testing.assert_close(averaged, seen_NQK.mean(1))


def test_half_precision_is_computed_in_single_and_returned_in_half() -> None:
    table = torch.randn(169, 2).half()
    new = interpolate.resize_own_table(table, (7, 7), (14, 14), "bicubic")
    assert new.dtype == torch.float16
    assert new.equal(interpolate.resize_own_table(table.float(), (7, 7), (14, 14), "bicubic").half())


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^interpolation: 'nearest' is unknown"):
        narrow().set_input_size(window_size=5, interpolation="nearest")


def test_setting_the_size_that_a_model_has_changes_nothing() -> None:
    model = narrow()
    before = dict(model.named_parameters())
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        logits = model(image)
        assert resized(model, 224) == []
        assert model(image).equal(logits)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_another_size_keeps_every_parameter_that_does_not_depend_on_it() -> None:
    model = narrow()
    before = dict(model.named_parameters())
    warning = resized(model, (448, 448), window_size=14)
    assert warning == [
        "set_input_size: 11 position biases interpolated from window 7 to 14; 4 pooling weights interpolated "
        "from pool size 7 to 14"
    ]
    changed = {name for name, value in model.named_parameters() if value is not before[name]}
    assert len(changed) == 15
    assert all(".attn." in name and "qkv" not in name and "proj" not in name for name in changed)
    assert model.options.img_size == (448, 448)
    assert model.effective_config()[0]["window"] == [14, 14]
    with torch.no_grad():
        assert model(torch.randn(1, 3, 448, 448)).isfinite().all()


def test_a_resized_model_is_the_one_built_at_that_size_from_the_same_checkpoint() -> None:
    sizes: dict[str, Any] = {
        "window_size": (8, 7, 6, 5),
        "focal_windows": (9, 7, 3, 3),
        "expand_sizes": (4, 3, 2, 2),
    }
    model = narrow(focal_levels=3)
    built = narrow(focal_levels=3, img_size=320, **sizes)
    fresh = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.warns(UserWarning, match="interpolated"):
        built.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match="interpolated"):
        model.set_input_size(320, **sizes)
    own, other = model.state_dict(), built.state_dict()
    assert own.keys() == other.keys()
    left = {name for name in own if not own[name].equal(other[name])}
    # the last stage had window 7 on a map of 7, so no ring: each model has drawn its own
    assert left == {"layers.3.blocks.0.attn.ring_bias"}
    assert other["layers.3.blocks.0.attn.ring_bias"].equal(fresh["layers.3.blocks.0.attn.ring_bias"])


def test_the_papers_detection_setting_runs_from_a_model_made_for_classification() -> None:
    model = narrow()
    warning = resized(model, (800, 1333), focal_windows=(15, 13, 9, 7))
    assert warning[0].startswith("set_input_size: 4 position biases interpolated from region 7 to 15, ")
    assert warning[0].endswith("; 1 position bias left as initialised (there is no ring to copy)")
    regions = [stage["levels"][0]["region"] for stage in model.effective_config()]
    assert regions == [[15, 15], [13, 13], [9, 9], [7, 7]]
    masked = narrow(img_size=(800, 1333), focal_windows=(15, 13, 9, 7), border="mask")
    with pytest.warns(UserWarning, match="4 position biases interpolated from region 7 to 15"):
        masked.load_state_dict(narrow().state_dict())
    image = torch.randn(1, 3, 800, 1333)
    with torch.no_grad():
        for detector in (model, masked):
            assert detector(image).isfinite().all()


def test_new_parameters_keep_device_type_and_whether_they_learn() -> None:
    model = narrow(dtype=torch.bfloat16).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.3" in name)
    resized(model, 448, window_size=10, focal_windows=9)
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, nn.Parameter)
        assert parameter.requires_grad == ("layers.3" in name), name
        assert parameter.dtype == torch.bfloat16
    assert all(module.training for module in model.modules())
    with torch.device("meta"):
        absent = timm.create_model(TINY, **NARROW)
    resized(absent, 448, window_size=14)
    assert {parameter.device.type for parameter in absent.parameters()} == {"meta"}


def test_attention_and_border_that_were_changed_stay_changed() -> None:
    model = narrow()
    for stage in model.layers:
        stage.blocks[0].attn.border, stage.blocks[0].attn.attention = "mask", "reference"
    resized(model, 448, window_size=14)
    kept = {(stage.blocks[0].attn.border, stage.blocks[0].attn.attention) for stage in model.layers}
    assert kept == {("mask", "reference")}


def test_windows_that_are_not_square_are_resized_where_their_sizes_are_known() -> None:
    model = narrow(img_size=(64, 224))  # the second stage's map is 8 high, the third's 4, the last's 2
    resized(model, 224)
    assert [stage["window"] for stage in model.effective_config()] == [[7, 7]] * 4
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expand_sizes": 9}, r"^expand_sizes: 9 is larger than the window 7"),
        ({"focal_windows": 4}, r"^focal_windows: 4 is even"),
        ({"img_size": (224, 224, 3)}, r"^img_size: "),
        ({"patch_size": 8}, r"^patch_size: 8 is not the model's 4, which cannot change"),
    ],
)
def test_a_size_that_breaks_a_rule_is_refused_and_leaves_the_model_as_it_was(
    arguments: dict[str, Any], message: str
) -> None:
    model = narrow()
    before, options = dict(model.named_parameters()), model.options
    with pytest.raises(ValueError, match=message):
        model.set_input_size(**arguments)
    assert model.options is options
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_timm_knows_the_new_size() -> None:
    inputs = pytest.importorskip("timm.models._input")
    model = narrow()
    resized(model, (256, 320))
    assert inputs.get_model_input_config(model)["input_size"] == (3, 256, 320)
    assert model.default_cfg["input_size"] == (3, 224, 224), "timm leaves the preset's description alone"


@pytest.mark.parametrize("pool", ["fc", "conv", "mean", "max"])
def test_sizes_there_and_back_run_for_every_pooling(pool: str) -> None:
    model = narrow(focal_pool=pool, focal_levels=2, coarse_bias="window")
    for size, window in itertools.product((112, 224), (4, 7)):
        resized(model, size, window_size=window)
        with torch.no_grad():
            assert model(torch.randn(1, 3, size, size)).isfinite().all()
