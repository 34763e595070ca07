"""Parameters, multiply-accumulates and activations against the published numbers."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

import focal_lab  # noqa: F401
from focal_lab.backbones.counting import (
    count_activations,
    count_gmacs,
    count_parameters,
    count_released_parameters,
)

TINY = "focal_tiny_patch4_window7_224"
SWIN = "focal_swin_tiny_patch4_window7_224"
# name, options, millions of parameters, GMACs: DESIGN.md's table, by the released code's bookkeeping
ROWS: list[tuple[str, dict[str, Any], float, float]] = [
    (TINY, {}, 28.88, 4.92),
    ("focal_small_patch4_window7_224", {}, 51.14, 9.43),
    ("focal_base_patch4_window7_224", {}, 89.82, 16.37),
    ("focal_conv_tiny_patch4_window7_224", {}, 30.83, 5.17),
    ("focal_conv_small_patch4_window7_224", {}, 53.09, 9.68),
    ("focal_conv_base_patch4_window7_224", {}, 93.27, 16.80),
    ("focal_large_patch4_window7_224", {}, 199.6, 35.94),
    (TINY, {"depths": (2, 2, 2, 2)}, 21.46, 3.42),
    (TINY, {"depths": (2, 2, 4, 2)}, 25.17, 4.17),
    (TINY, {"focal_levels": 1, "expand_sizes": 0}, 28.29, 4.49),
    (TINY, {"focal_levels": 1}, 28.87, 4.82),
    (TINY, {"expand_sizes": 0}, 28.30, 4.60),
    (SWIN, {}, 28.29, 4.49),
    (SWIN, {"window_size": 14}, 28.34, 4.89),
    ("swin_tiny_patch4_window7_224", {}, 28.29, 4.49),
]
WINDOW_14 = (29.42, 5.35)


def build(name: str, **options: Any) -> nn.Module:
    """A model without memory for its weights."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, **options)
    return model


@pytest.mark.parametrize(("name", "options", "millions", "gmacs"), ROWS)
def test_parameters_and_gmacs_are_the_published_ones(
    name: str, options: dict[str, Any], millions: float, gmacs: float
) -> None:
    model = build(name, **options)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, rel=0.005)
    assert count_released_parameters(model) / 1e6 == pytest.approx(millions, rel=0.0005)
    assert count_gmacs(model, (224, 224)) == pytest.approx(gmacs, rel=0.005)


def test_window_14_has_the_published_parameters_when_doubled_ring_keys_count_twice() -> None:
    model = build(TINY, window_size=14)
    millions, gmacs = WINDOW_14
    assert count_gmacs(model, (224, 224)) == pytest.approx(gmacs, rel=0.005)
    assert count_released_parameters(model) / 1e6 == pytest.approx(millions, rel=0.0005)
    # the released code stores 300 ring biases for 204 distinct keys, in the two stages that have a ring:
    # two blocks each of 3 and 6 heads, 196 queries
    stored_twice = 2 * (3 + 6) * 196 * (300 - 204)
    assert count_released_parameters(model) - count_parameters(model) == stored_twice
    assert count_parameters(model) / 1e6 == pytest.approx(millions * (1 - 0.0113), rel=0.001)


def test_without_a_ring_both_ways_of_counting_agree() -> None:
    model = build(SWIN)
    assert count_released_parameters(model) == count_parameters(model)


def test_a_linear_layers_macs_are_its_weights_times_its_rows() -> None:
    class Image(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1000)

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.linear(x_BCHW.permute(0, 2, 3, 1))
            return out

    assert count_gmacs(Image(), (50, 20), in_chans=4) == pytest.approx(4 * 1000 * 50 * 20 / 1e9)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = timm.create_model("focal_micro_patch2_window7_28", num_classes=10).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # the paper's attention term, twice the keys times the queries times the width, is in it
    reference = build("focal_micro_patch2_window7_28", num_classes=10, attention="reference")
    assert count_gmacs(model, (28, 28)) == pytest.approx(count_gmacs(reference, (28, 28)))
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_smaller_image_costs_less() -> None:
    model = build("focal_micro_patch2_window7_28")
    assert count_gmacs(model, (56, 56)) > 3 * count_gmacs(model, (28, 28))


# millions of activations: of the convolutional network in Radosavovic et al. 2020, of the transformers on
# timm's model cards
@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50", 11.1), ("swin_small_patch4_window7_224", 27.5), ("deit_small_patch16_224", 11.9)],
)
def test_activations_are_the_published_ones(name: str, millions: float) -> None:
    assert count_activations(build(name), (224, 224)) / 1e6 == pytest.approx(millions, abs=0.05)


def test_swin_as_a_focal_backbone_has_swins_activations() -> None:
    same = count_activations(build("swin_tiny_patch4_window7_224"), (224, 224))
    assert count_activations(build(SWIN), (224, 224)) == same


def test_both_implementations_of_the_attention_have_the_same_activations() -> None:
    fast, reference = (
        count_activations(build("focal_micro_patch2_window7_28", attention=attention), (28, 28))
        for attention in ("fast", "reference")
    )
    assert fast == reference


def test_only_convolutions_linear_layers_and_attention_products_have_activations() -> None:
    class Image(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1)
            self.norm, self.act = nn.BatchNorm2d(8), nn.GELU()
            self.linear = nn.Linear(8, 24, bias=False)

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            x_BHWC = self.act(self.norm(self.conv(x_BCHW))).permute(0, 2, 3, 1)
            q, k, v = self.linear(x_BHWC).flatten(1, 2)[:, None].chunk(3, -1)
            return nn.functional.scaled_dot_product_attention(q, k, v)

    tokens = 5 * 6
    convolution, linear, scores, attended = tokens * 8, tokens * 24, tokens * tokens, tokens * 8
    counted = count_activations(Image(), (10, 12), in_chans=1)
    assert counted == convolution + linear + scores + attended


def test_a_model_that_passes_parameters_to_its_layers_is_counted() -> None:
    # regression: the FLOP counter's hooks failed on CaiT's class token, a parameter that is a layer's input
    assert count_gmacs(build("cait_xxs24_224"), (224, 224)) == pytest.approx(2.53, rel=0.005)
