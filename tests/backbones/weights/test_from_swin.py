"""Weights of Swin in a focal model: what is copied, what stays fresh, and what is refused."""

from typing import Any

import pytest
import timm
import torch
from support.swin_weights import SMALL, as_microsoft_stores, swin
from torch import Tensor, nn

import focal_lab  # noqa: F401
from focal_lab.backbones.model import FocalTransformer, PatchMerging
from focal_lab.backbones.weights.formats import WeightsError
from focal_lab.backbones.weights.from_swin import merging_as_convolution, swin_to_focal

MICRO = "focal_micro_patch2_window7_28"


def focal(**options: Any) -> FocalTransformer:
    model: FocalTransformer = timm.create_model(
        "focal_tiny_patch4_window7_224", **{"focal_windows": 3} | SMALL | options
    )
    return model.eval()


def test_patch_merging_is_the_convolution_that_it_becomes() -> None:
    merging = PatchMerging(3).double()
    for parameter in merging.parameters():
        nn.init.normal_(parameter)
    x_BHWC = torch.randn(2, 6, 10, 3, dtype=torch.float64)
    scale, shift = merging.norm.weight.detach().clone(), merging.norm.bias.detach().clone()
    # the module's own order of neighbours, with the norm reduced to its scale and shift
    merging.norm = Affine(scale, shift)  # type: ignore[assignment]
    expected = merging(x_BHWC)
    kernel, bias = merging_as_convolution(merging.reduction.weight, scale, shift)
    merged = nn.functional.conv2d(x_BHWC.permute(0, 3, 1, 2), kernel, bias, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(merged, expected)
    # the order of the neighbours matters
    flipped = nn.functional.conv2d(x_BHWC.permute(0, 3, 1, 2), kernel.mT, bias, stride=2).permute(0, 2, 3, 1)
    assert (flipped - expected).abs().max() > 0.1


class Affine(nn.Module):
    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


@pytest.mark.parametrize("stored", ["timm", "Microsoft"])
def test_a_focal_model_takes_everything_that_swin_has(stored: str) -> None:
    teacher = swin()
    state = teacher.state_dict() if stored == "timm" else as_microsoft_stores(teacher.state_dict())
    model = focal()
    values, report = swin_to_focal({"model": state}, model)
    model.load_state_dict(values)
    assert report.origin == f"{stored} Swin"
    assert {change.key for change in report.folded} == {
        "layers.1.downsample.proj.weight",
        "layers.1.downsample.proj.bias",
    }
    fresh = {change.key for change in report.fresh}
    assert {key.split("attn.")[-1] for key in fresh if "attn." in key} == {
        "ring_bias",
        "coarse_bias_tables.0",
        "pools.0.linear.weight",
        "pools.0.linear.bias",
    }
    assert {key for key in fresh if "attn." not in key} == {
        "layers.1.downsample.norm.weight",
        "layers.1.downsample.norm.bias",
    }
    mapped = {change.key for change in report.mapped}
    assert mapped | fresh | {change.key for change in report.folded} == set(model.state_dict())
    assert all(model.state_dict()[key].equal(teacher.state_dict()[key]) for key in mapped)
    assert not report.dropped


def test_without_focal_levels_and_shift_the_model_computes_what_swin_does() -> None:
    teacher = swin(depths=(1, 1))
    model = focal(depths=(1, 1), expand_sizes=0, focal_levels=1, downsample="merge", border="mask")
    values, report = swin_to_focal(teacher.state_dict(), model)
    assert (report.fresh, report.folded, report.dropped) == ([], [], [])
    model.load_state_dict(values)
    image = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(model(image), teacher(image), rtol=1e-4, atol=1e-4)


def test_swins_windows_and_head_are_fitted_to_the_models() -> None:
    teacher = swin(window_size=14)
    _, report = swin_to_focal(teacher.state_dict(), focal(num_classes=3))
    assert {change.why for change in report.interpolated} == {"window 14 to 7"}
    assert {change.why for change in report.fresh if change.key.startswith("head")} == {
        "its head has 5 classes"
    }


def test_an_overlapping_embedding_and_layer_scale_stay_fresh() -> None:
    model = focal(use_conv_embed=True, use_layerscale=True, use_pre_norm=True)
    _, report = swin_to_focal(swin().state_dict(), model)
    fresh = {change.key for change in report.fresh}
    expected = {
        key
        for key in model.state_dict()
        if key.startswith(("patch_embed", "layers.1.downsample")) or "gamma" in key
    }
    assert expected <= fresh
    assert {change.key for change in report.dropped} == {
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "patch_embed.norm.weight",
        "patch_embed.norm.bias",
        "layers.1.downsample.norm.weight",
        "layers.1.downsample.norm.bias",
        "layers.1.downsample.reduction.weight",
    }
    assert not report.folded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"embed_dim": 48},
            r"^patch_embed\.proj\.weight: shape \(24, 3, 4, 4\) is not the model's \(48, 3, 4, 4\)",
        ),
        ({"depths": (2, 4)}, r"^layers\.1\.blocks\.2\.norm1\.weight: is missing"),
        ({"depths": (2, 1)}, r"^layers\.1\.blocks\.1\S+: is not a parameter of the model"),
    ],
)
def test_swin_of_another_width_or_depth_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        swin_to_focal(swin().state_dict(), focal(**options))


def test_weights_that_are_not_swins_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"^these weights are not Swin's but in the format of focal-lab$"):
        swin_to_focal(focal().state_dict(), focal())
