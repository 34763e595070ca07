"""Swin as the degenerate focal backbone: timm's Swin, computed by this package with the same weights."""

import itertools
from typing import Any

import pytest
import timm
import torch
from torch import nn

import focal_lab  # noqa: F401
from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.options import ATTENTIONS, BORDERS


def swin_and_twin(**options: Any) -> tuple[nn.Module, nn.Module]:
    """timm's Swin-Tiny with weights large enough for attention to matter, and ours with the same."""
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10, **options).eval()
    for name, parameter in swin.named_parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
        else:
            nn.init.normal_(parameter, std=0.5 if "bias_table" in name else parameter[0].numel() ** -0.5)
    twin = timm.create_model(
        "focal_swin_tiny_patch4_window7_224", num_classes=10, focal_windows=1, **options
    ).eval()
    twin.load_state_dict(swin.state_dict())
    return swin, twin


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((224, 224), {"window_size": 7}),
        ((224, 224), {"window_size": 14}),
        # 28 x 56, 14 x 28 and 7 x 14 tokens: the last windows are shifted sideways only
        ((112, 224), {"depths": (2, 2, 6), "num_heads": (3, 6, 12), "embed_dim": 48}),
        # 32 x 64 to 4 x 8 tokens in windows of 4
        ((128, 256), {"window_size": 4, "embed_dim": 48}),
    ],
    ids=["window 7", "window 14", "wide, three stages", "wide, window 4"],
)
def test_logits_equal_timms_swin_with_its_weights(size: tuple[int, int], options: dict[str, Any]) -> None:
    swin, twin = swin_and_twin(img_size=size, **options)
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = swin(image)
        assert expected.std() > 0.1
        for border, attention in itertools.product(BORDERS, ATTENTIONS):
            for module in twin.modules():
                if isinstance(module, FocalAttention):
                    module.border, module.attention = border, attention
            torch.testing.assert_close(twin(image), expected, rtol=0, atol=1e-4)


SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6), "img_size": (64, 128), "window_size": 4}


def test_gradients_equal_timms_swin_with_its_weights() -> None:
    swin, twin = swin_and_twin(**SMALL)
    image = torch.randn(2, 3, 64, 128)
    for model in (swin, twin):
        model(image).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in swin.named_parameters()}
    for name, parameter in twin.named_parameters():
        error = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert error < 1e-4, name


def test_parity_notices_a_missing_shift() -> None:
    swin, twin = swin_and_twin(**SMALL)
    image = torch.randn(2, 3, 64, 128)
    for stage in twin.layers:
        stage.blocks[1].shifted = False
    with torch.no_grad():
        assert (twin(image) - swin(image)).abs().max() > 0.01


def test_parameter_names_shapes_and_layer_decay_groups_are_swins() -> None:
    with torch.device("meta"):
        swin = timm.create_model("swin_tiny_patch4_window7_224")
        twin = timm.create_model("focal_swin_tiny_patch4_window7_224")
    assert {name: value.shape for name, value in twin.named_parameters()} == {
        name: value.shape for name, value in swin.named_parameters()
    }
    for coarse in (False, True):
        assert twin.group_matcher(coarse) == swin.group_matcher(coarse)
    assert twin.no_weight_decay() == swin.no_weight_decay()
