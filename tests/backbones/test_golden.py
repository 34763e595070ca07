"""Logits of the authors' released code, reproduced from its weights."""

import math

import pytest
import torch
from released_weights import convert, fold_ring, read_golden

from focal_lab.backbones.focal import FocalTransformer
from focal_lab.backbones.options import ATTENTIONS, make_options, resolve_stages

FILES = ("released", "shift", "conv_embed", "pool_mean_window_only", "local_only", "three_levels")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", FILES)
def test_logits_equal_the_released_codes(name: str, attention: str) -> None:
    golden = read_golden(name)
    model = FocalTransformer(**golden.options, attention=attention).eval()
    model.load_state_dict(convert(golden.weights, model))
    with torch.no_grad():
        logits = model(golden.picture)
    assert golden.logits.abs().max() > 0.5
    torch.testing.assert_close(logits, golden.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spoiled", ["ring_bias", "relative_position_bias_table", "coarse_bias_tables.0"])
def test_logits_notice_position_biases_in_the_wrong_order(spoiled: str) -> None:
    golden = read_golden("released")
    model = FocalTransformer(**golden.options).eval()
    model.load_state_dict(convert(golden.weights, model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(f"attn.{spoiled}"):
                parameter.copy_(parameter.flatten().flip(0).view_as(parameter))
        difference = (model(golden.picture) - golden.logits).abs().max()
    assert difference > 1e-3


def test_ring_keys_seen_twice_fold_into_one() -> None:
    stage = resolve_stages(make_options({"img_size": 56}))[0]
    copies_NQR = torch.randn(3, 49, 132)
    folded_NQR = fold_ring(copies_NQR, stage)
    assert folded_NQR.shape == (3, 49, 120)
    # no bias is lost: the sum of the exponentials is that of all copies, and 108 keys are seen once
    torch.testing.assert_close(folded_NQR.exp().sum(2), copies_NQR.exp().sum(2))
    alone = torch.isclose(folded_NQR[..., None], copies_NQR[:, :, None], rtol=0, atol=1e-6).any(3).sum(2)
    assert (alone == 108).all()


def test_equal_biases_of_a_doubled_key_grow_by_the_logarithm_of_two() -> None:
    stage = resolve_stages(make_options({"img_size": 56}))[0]
    folded_NQR = fold_ring(torch.zeros(1, 49, 132), stage)
    values, counts = folded_NQR[0, 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, math.log(2)]))
    assert counts.tolist() == [108, 12]
