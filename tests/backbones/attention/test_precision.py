"""Half precision and mixed precision."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import focal_lab  # noqa: F401
from focal_lab.backbones.options import BORDERS

FORMATS = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


def make(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        "focal_micro_patch2_window7_28", num_classes=5, use_shift=True, focal_levels=2, **options
    )
    return model


def step(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    logits = model(x)
    logits.float().square().sum().backward()
    return {"logits": logits.detach()} | {name: p.grad for name, p in model.named_parameters()}


@FORMATS
@pytest.mark.parametrize("border", BORDERS)
def test_a_training_step_under_autocast_is_finite_and_close(border: str, dtype: torch.dtype) -> None:
    model = make(border=border)
    x = torch.randn(4, 3, 28, 28)
    expected = step(model, x)
    with torch.autocast("cpu", dtype):
        found = step(model, x)
    assert found["logits"].dtype == dtype
    for name, value in found.items():
        assert value.isfinite().all(), name
        assert value.dtype == expected[name].dtype or name == "logits"
    torch.testing.assert_close(found["logits"].float(), expected["logits"], rtol=0.05, atol=0.03)


@FORMATS
@pytest.mark.parametrize("border", BORDERS)
def test_a_model_may_change_its_number_format_between_two_passes(border: str, dtype: torch.dtype) -> None:
    # masks are kept from the first pass: nothing in them may belong to its format
    model = make(border=border).eval()
    x = torch.randn(2, 3, 25, 28)
    with torch.no_grad():
        expected = model(x)
        half = model.to(dtype)(x.to(dtype))
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.03)
        assert model.double()(x.double()).dtype == torch.float64


@FORMATS
def test_hidden_keys_have_no_weight_at_all_in_half_precision(dtype: torch.dtype) -> None:
    # a finite penalty like -100 would leak if scores are large: hidden rows differ by 300
    model = make(border="mask", expand_sizes=3).to(dtype).eval()
    attention = model.layers[0].blocks[0].attn
    with torch.no_grad():
        attention.qkv.bias.fill_(4.0)
        attention.relative_position_bias_table.fill_(-200.0)
        if attention.ring_bias is not None:
            attention.ring_bias.fill_(0.0)
        x = torch.randn(1, 14, 14, attention.stage.dim).to(dtype)
        whole = attention(x)
        reference = attention.double()
        expected = reference(x.double())
    assert whole.isfinite().all()
    torch.testing.assert_close(whole.double(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("deterministic", [True])
def test_training_is_the_same_twice_and_has_deterministic_algorithms_only(deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    try:
        x = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
        one, other = step(make(border="mask"), x), step(make(border="mask"), x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(one[name].equal(other[name]) for name in one)
