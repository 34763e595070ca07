"""Logits of the authors' released code, reproduced from its own files."""

import math
import warnings
from pathlib import Path

import pytest
import timm
import torch
from support.released_weights import read_golden

import focal_lab  # noqa: F401
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import ATTENTIONS
from focal_lab.backbones.weights.formats import fold_ring

FILES = ("released", "shift", "conv_embed", "pool_mean_window_only", "local_only", "three_levels")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", FILES)
def test_logits_equal_the_released_codes(name: str, attention: str) -> None:
    golden = read_golden(name)
    model = FocalTransformer(**golden.options, attention=attention).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is resized, dropped or left fresh
        assert not any(model.load_state_dict(golden.weights))
    with torch.no_grad():
        logits = model(golden.image)
    assert golden.logits.abs().max() > 0.5
    torch.testing.assert_close(logits, golden.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FILES)
def test_a_released_file_is_a_checkpoint_for_timm(name: str, tmp_path: Path) -> None:
    golden = read_golden(name)
    torch.save({"model": golden.weights, "epoch": 299}, tmp_path / "raw.pth")
    model = timm.create_model(
        "focal_tiny_patch4_window7_224", **golden.options, checkpoint_path=str(tmp_path / "raw.pth")
    )
    with torch.no_grad():
        logits = model.eval()(golden.image)
    torch.testing.assert_close(logits, golden.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spoiled", ["ring_bias", "relative_position_bias_table", "coarse_bias_tables.0"])
def test_logits_notice_position_biases_in_the_wrong_order(spoiled: str) -> None:
    golden = read_golden("released")
    model = FocalTransformer(**golden.options).eval()
    model.load_state_dict(golden.weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(f"attn.{spoiled}"):
                parameter.copy_(parameter.flatten().flip(0).view_as(parameter))
        difference = (model(golden.image) - golden.logits).abs().max()
    assert difference > 1e-3


def test_ring_keys_seen_twice_fold_into_one() -> None:
    copies_NQR = torch.randn(3, 49, 132, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded_NQR = fold_ring(copies_NQR)
    assert folded_NQR.shape == (3, 49, 120)
    # no bias is lost: the sum of the exponentials is that of all copies, and 108 keys are seen once
    torch.testing.assert_close(folded_NQR.exp().sum(2), copies_NQR.exp().sum(2))
    alone = torch.isclose(folded_NQR[..., None], copies_NQR[:, :, None], rtol=0, atol=1e-12).any(3).sum(2)
    assert (alone == 108).all()


def test_equal_biases_of_a_doubled_key_grow_by_the_logarithm_of_two() -> None:
    folded_NQR = fold_ring(torch.zeros(1, 49, 132))
    values, counts = folded_NQR[0, 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, math.log(2)]))
    assert counts.tolist() == [108, 12]


@pytest.mark.parametrize(("window", "expand"), [(7, 3), (7, 1), (14, 6), (14, 7), (5, 2), (4, 2)])
def test_folding_follows_the_definition_key_by_key(window: int, expand: int) -> None:
    """Each copy as rolled by the released code: token (i + down, j + right) at (i, j)."""
    seen: list[tuple[int, int]] = []
    for down, right in ((expand, expand), (expand, -expand), (-expand, expand), (-expand, -expand)):
        tokens = [(i + down, j + right) for i in range(window) for j in range(window)]
        seen += [token for token in tokens if not all(0 <= place < window for place in token)]
    copies_NQR = torch.randn(2, window**2, len(seen))
    frame = [(i, j) for i in range(-expand, window + expand) for j in range(-expand, window + expand)]
    ring = [token for token in frame if not all(0 <= place < window for place in token)]
    expected = torch.stack(
        [
            copies_NQR[:, :, [at for at, other in enumerate(seen) if other == token]].double().logsumexp(2)
            for token in ring
        ],
        2,
    )
    torch.testing.assert_close(fold_ring(copies_NQR), expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 48, 132), "is not a ring of the released code: "),
        ((1, 49, 128), "is not a ring of the released code of window 7: "),
        ((1, 49, 160), "that closes: its expansion 4 exceeds half of the window 7"),
    ],
)
def test_a_shape_that_is_not_a_ring_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=r"^shape \(1, 4") as caught:
        fold_ring(torch.zeros(shape))
    assert message in str(caught.value)
