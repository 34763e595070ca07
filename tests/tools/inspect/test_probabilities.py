"""Attention probabilities equal the network's, and keys stand for the tokens that have a gradient."""

from typing import Any

import pytest
import timm
import torch
from support.attention_cases import make_attention, random_map
from torch import Tensor

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.presets import PRESETS
from focal_lab.tools.inspect.probabilities import (
    Attended,
    attended_by_block,
    key_levels,
    network_layers,
    recompute,
)

SWIN: dict[str, Any] = {"focal_levels": 1, "expand_sizes": 0, "use_shift": True}
# Every option that changes which keys there are; sizes that no window divides, and some below a window.
CASES: dict[str, tuple[tuple[int, int], bool, dict[str, Any]]] = {
    "wrap": ((10, 15), False, {}),
    "wrap, padded": ((11, 8), False, {}),
    "wrap, padded, shifted": ((12, 9), True, {"use_shift": True}),
    "wrap, shifted": ((10, 15), True, {"use_shift": True}),
    "wrap, three levels": ((13, 11), False, {"focal_levels": 3}),
    "wrap, three levels, shifted": ((13, 11), True, {"focal_levels": 3, "use_shift": True}),
    "wrap, cells larger than the canvas": ((10, 10), False, {"pool_sizes": [[3]]}),
    "wrap, no ring": ((11, 8), False, {"expand_sizes": 0}),
    "wrap, ring only": ((11, 8), False, {"focal_levels": 1}),
    "mask": ((11, 8), False, {"border": "mask"}),
    "mask, shifted": ((11, 8), True, {"border": "mask", "use_shift": True}),
    "mask, three levels": ((13, 11), False, {"border": "mask", "focal_levels": 3}),
    "mask, three levels, shifted": ((13, 11), True, {"border": "mask", "focal_levels": 3, "use_shift": True}),
    "mask, no ring": ((11, 8), False, {"border": "mask", "expand_sizes": 0}),
    "mask, ring only, shifted": ((11, 8), True, {"border": "mask", "focal_levels": 1, "use_shift": True}),
    "mask, mean": ((11, 8), False, {"border": "mask", "pool": "mean"}),
    "mask, max": ((11, 8), False, {"border": "mask", "pool": "max"}),
    "mask, conv": ((11, 8), False, {"border": "mask", "pool": "conv"}),
    "wrap, max": ((12, 9), False, {"pool": "max"}),
    "wrap, bias a window": ((11, 8), False, {"coarse_bias": "window"}),
    "wrap, levels without overlap": ((17, 12), False, {"level_overlap": "exclude", "focal_windows": 5}),
    "mask, levels without overlap": (
        (17, 12),
        False,
        {"level_overlap": "exclude", "focal_windows": 5, "border": "mask"},
    ),
    "Swin": ((10, 15), False, SWIN),
    "Swin, shifted": ((10, 15), True, SWIN),
    "Swin, shifted, padded": ((11, 8), True, SWIN),
    "Swin, shifted, masked": ((10, 15), True, SWIN | {"border": "mask"}),
    "Swin, shifted, masked, padded": ((11, 8), True, SWIN | {"border": "mask"}),
    "smaller than a window": ((4, 3), True, {"use_shift": True}),
    "narrower than a window": ((4, 12), True, {"use_shift": True, "border": "mask"}),
}


def attention_of(case: str, **more: Any) -> tuple[Any, Tensor, bool]:
    """The attention, a map of three images in double precision, and whether it is shifted."""
    size, shifted, options = CASES[case]
    module = make_attention(size, dtype=torch.float64, **(options | more))
    return module, random_map(module, size, batch=3), shifted


def at_every_token(attended: Attended) -> list[tuple[int, int]]:
    """Corners, the middle and a few others."""
    height, width = attended.grid.map_size
    rows, columns = {0, 1, height // 2, height - 1}, {0, width // 2, width - 2, width - 1}
    return [(row, column) for row in sorted(rows) for column in sorted(columns) if column >= 0]


@pytest.mark.parametrize("attention", ["fast", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_the_probabilities_times_the_values_are_the_attentions_output(case: str, attention: str) -> None:
    size, shifted, options = CASES[case]
    module = make_attention(size, attention=attention, **options)
    x_BHWC = random_map(module, size)
    attended = recompute(module, x_BHWC, shifted)
    expected = module(x_BHWC, shifted)
    assert ((attended.output_BHWC - expected).abs().max() / expected.abs().max()).item() < 1e-5
    sums = attended.probabilities_BPNQK.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert not attended.probabilities_BPNQK[
        ~attended.visible[:, :, None].expand_as(attended.probabilities_BPNQK)
    ].any()


@pytest.mark.parametrize("size", [(17, 9), (5, 23), (3, 3)])
@pytest.mark.parametrize("case", CASES)
def test_the_same_holds_on_maps_of_other_sizes(case: str, size: tuple[int, int]) -> None:
    module, _, shifted = attention_of(case)
    x_BHWC = random_map(module, size)
    attended = recompute(module, x_BHWC, shifted)
    torch.testing.assert_close(attended.output_BHWC, module(x_BHWC, shifted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shifted", [False, True])
def test_the_same_holds_for_images_that_fill_a_part_of_the_map(shifted: bool) -> None:
    module = make_attention((12, 13), border="mask", use_shift=True, focal_levels=3, dtype=torch.float64)
    x_BHWC, valid_B2 = random_map(module, (12, 13)), torch.tensor([[12, 13], [7, 4]])
    attended = recompute(module, x_BHWC, shifted, valid_B2)
    torch.testing.assert_close(attended.output_BHWC, module(x_BHWC, shifted, valid_B2), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"token \(7, 0\) is not on the 7 x 4 map"):
        attended.at(1, 7, 0)
    seen = attended.at(1, 6, 3)
    for level in seen:
        assert not level.areas_KHW[:, 7:].any()
        assert not level.areas_KHW[:, :, 4:].any()
    assert attended.shares()[1].abs().max() == 0


@pytest.mark.parametrize("case", CASES)
def test_what_a_query_sees_is_where_its_output_has_a_gradient(case: str) -> None:
    """No more and no less; the output comes from the attention itself."""
    module, x_BHWC, shifted = attention_of(case)
    attended = recompute(module, x_BHWC, shifted)
    x_BHWC.requires_grad_()
    output_BHWC = module(x_BHWC, shifted)
    for row, column in at_every_token(attended):
        (grad_BHWC,) = torch.autograd.grad(output_BHWC[1, row, column].sum(), x_BHWC, retain_graph=True)
        assert not grad_BHWC[[0, 2]].any()
        felt_HW = grad_BHWC[1].abs().sum(-1) > 0
        drawn_HW = torch.zeros_like(felt_HW)
        for level in attended.at(1, row, column):
            drawn_HW |= level.areas_KHW.any(0)
        if CASES[case][2].get("pool") == "max":  # only the largest of a sub-window's tokens is felt
            assert not (felt_HW & ~drawn_HW).any()
        else:
            assert torch.equal(felt_HW, drawn_HW), (row, column)


@pytest.mark.parametrize("case", CASES)
def test_a_keys_area_is_where_its_score_has_a_gradient(case: str) -> None:
    """log p(key) - log p(own token) is a difference of scores: of the key and the query alone."""
    module, x_BHWC, shifted = attention_of(case)
    x_BHWC.requires_grad_()
    attended = recompute(module, x_BHWC, shifted)
    height, width = attended.grid.map_size
    row, column = height - 1, width // 2
    seen = attended.at(0, row, column)
    own = next(level for level in seen if level.name == "window")
    own_key = int(own.areas_KHW[:, row, column].nonzero())
    own_log = own.probabilities_NK[0, own_key].log()
    checked = 0
    for level in seen:
        for key in range(level.probabilities_NK.shape[1]):
            probability = level.probabilities_NK[0, key]
            area_HW = level.areas_KHW[key].clone()
            if probability == 0:
                assert not area_HW.any()
                continue
            (grad_BHWC,) = torch.autograd.grad(probability.log() - own_log, x_BHWC, retain_graph=True)
            felt_HW = grad_BHWC[0].abs().sum(-1) > 1e-9  # the softmax's sum cancels but for rounding
            area_HW[row, column] = felt_HW[row, column] = True
            if CASES[case][2].get("pool") == "max" and level.name.startswith("pooled"):
                assert not (felt_HW & ~area_HW).any()
            else:
                assert torch.equal(felt_HW, area_HW), (level.name, key)
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize(
    ("border", "levels"), [("wrap", 2), ("mask", 2), ("mask", 3), ("wrap", 3), ("mask", 1)]
)
def test_pixels_outside_the_areas_do_not_change_a_query_of_a_one_block_network(
    border: str, levels: int
) -> None:
    torch.manual_seed(0)
    network = timm.create_model(
        "focal_micro_patch2_window7_28",
        img_size=54,
        depths=(1,),
        num_heads=2,
        focal_windows=3,
        focal_levels=levels,
        border=border,
        expand_sizes=2,
        window_size=5,
        num_classes=0,
    ).eval()
    assert isinstance(network, FocalTransformer)
    image_BCHW = torch.randn(1, 3, 54, 50)
    with torch.no_grad():
        before_BHWC = network.forward_features(image_BCHW)
    ((layer, attended, _),) = attended_by_block(network, image_BCHW)
    assert layer.stride == 2
    for row, column in [(0, 0), (13, 12), (26, 24), (5, 20)]:
        drawn_HW = torch.stack([level.areas_KHW.any(0) for level in attended.at(0, row, column)]).any(0)
        pixels_HW = drawn_HW.repeat_interleave(layer.stride, 0).repeat_interleave(layer.stride, 1)
        assert pixels_HW.shape == image_BCHW.shape[2:]
        assert not pixels_HW.all() or levels > 1
        for where, same in ((~pixels_HW, True), (pixels_HW, False)):
            changed_BCHW = torch.where(where, torch.randn_like(image_BCHW), image_BCHW)
            with torch.no_grad():
                after_BHWC = network.forward_features(changed_BCHW)
            assert torch.equal(after_BHWC[0, row, column], before_BHWC[0, row, column]) is same


@pytest.mark.parametrize("case", CASES)
def test_shares_are_the_mean_over_the_images_queries(case: str) -> None:
    module, x_BHWC, shifted = attention_of(case)
    attended = recompute(module, x_BHWC, shifted)
    shares, off_image_BN = attended.shares()
    shares_BNL = torch.stack(list(shares.values()), -1)
    torch.testing.assert_close(shares_BNL.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    height, width = attended.grid.map_size
    expected_NL, expected_N = torch.zeros_like(shares_BNL[2]), torch.zeros_like(off_image_BN[2])
    for row in range(height):
        for column in range(width):
            seen = attended.at(2, row, column)
            assert [level.name for level in seen] == list(shares)
            expected_NL += torch.stack([level.probabilities_NK.sum(-1) for level in seen], -1)
            for level in seen:
                expected_N += level.probabilities_NK[:, ~level.areas_KHW.any((1, 2))].sum(-1)
    torch.testing.assert_close(shares_BNL[2], expected_NL / (height * width))
    torch.testing.assert_close(off_image_BN[2], expected_N / (height * width))


def test_padding_takes_attention_where_the_released_code_lets_it() -> None:
    wrapped, masked = (attention_of(case) for case in ("wrap, padded", "mask"))
    assert recompute(*wrapped).shares()[1].min() > 0.01
    assert recompute(*masked).shares()[1].max() == 0


def test_the_heat_of_a_level_counts_a_key_on_each_of_its_tokens() -> None:
    module, x_BHWC, shifted = attention_of("mask")
    window, ring, pooled = recompute(module, x_BHWC, shifted).at(0, 5, 4)
    torch.testing.assert_close(window.heat_NHW.sum((1, 2)), window.probabilities_NK.sum(-1))
    torch.testing.assert_close(ring.heat_NHW.sum((1, 2)), ring.probabilities_NK.sum(-1))
    sizes_K = pooled.areas_KHW.sum((1, 2)).double()
    torch.testing.assert_close(pooled.heat_NHW.sum((1, 2)), pooled.probabilities_NK @ sizes_K)
    assert sizes_K.max() == 25


@pytest.mark.parametrize(("case", "names"), [("Swin", ["window"]), ("wrap, no ring", ["window", "pooled 1"])])
def test_levels_without_keys_are_left_out(case: str, names: list[str]) -> None:
    module, x_BHWC, shifted = attention_of(case)
    attended = recompute(module, x_BHWC, shifted)
    levels = key_levels(attended.grid)
    assert list(levels) == names
    assert sum(map(len, levels.values())) == attended.probabilities_BPNQK.shape[-1]


@pytest.mark.parametrize("name", [name for name in PRESETS if "micro" in name or "tiny" in name])
def test_watching_changes_nothing_and_every_block_is_seen(name: str) -> None:
    torch.manual_seed(0)
    size = 56 if "micro" in name else 112
    network = timm.create_model(name, num_classes=5, drop_path_rate=0.1).eval()
    assert isinstance(network, FocalTransformer)
    for parameter in network.parameters():
        if parameter.ndim < 2:
            torch.nn.init.normal_(parameter, std=0.5)
    image_BCHW = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = network(image_BCHW)
        seen = [(layer.number, error) for layer, _, error in attended_by_block(network, image_BCHW)]
        assert torch.equal(network(image_BCHW), before)
    assert [number for number, _ in seen] == [layer.number for layer in network_layers(network)]
    assert len(seen) == sum(network.options.depths)
    assert 0 <= max(error for _, error in seen) < 1e-5


def test_watching_ends_when_something_fails() -> None:
    network = timm.create_model("focal_micro_patch2_window7_28", num_classes=0).eval()
    with pytest.raises(RuntimeError):
        list(attended_by_block(network, torch.zeros(1, 2, 28, 28)))
    assert not any(layer.attention._forward_hooks for layer in network_layers(network))
