"""With border="mask" nothing outside the image is visible, and no edge sees the opposite one."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support.attention_cases import make_attention, random_map
from torch import Tensor

from focal_lab.backbones import geometry
from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import BORDERS, POOLINGS, Size


def influence(module: FocalAttention, size: Size, query: Size, shifted: bool) -> Tensor:
    """(H, W): how much each token moves the output at `query`."""
    x_BHWC = random_map(module, size, batch=1).requires_grad_()
    module(x_BHWC, shifted)[0, query[0], query[1]].square().sum().backward()
    assert x_BHWC.grad is not None
    return x_BHWC.grad[0].abs().sum(-1)


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("query", [(0, 0), (11, 6), (21, 13)])
def test_a_query_is_moved_by_its_reach_and_by_nothing_beyond(query: Size, shifted: bool, pool: str) -> None:
    size, window, expand, focal_window = (22, 14), 4, 1, 3
    module = make_attention(
        size,
        border="mask",
        pool=pool,
        window_size=window,
        expand_sizes=expand,
        focal_windows=focal_window,
        use_shift=True,
        dtype=torch.float64,
    )
    moved = influence(module, size, query, shifted)
    offset = window // 2 if shifted else 0
    fine, coarse = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    starts = [(place + offset) // window * window - offset for place in query]
    for reached, reach in ((fine, expand), (coarse, window * (focal_window // 2))):
        (top, left) = (max(0, start - reach) for start in starts)
        reached[top : starts[0] + window + reach, left : starts[1] + window + reach] = True
    assert moved[fine].min() > 0, "every fine token matters"
    assert moved[~coarse].numel() > 0
    assert moved[~coarse].max() == 0, "nothing beyond the coarse region does"
    if pool != "max":  # which sees one token of a cell per channel
        assert moved[coarse].min() > 0


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("border", BORDERS)
def test_the_opposite_edge_moves_a_query_only_where_the_border_wraps(border: str, shifted: bool) -> None:
    size = (16, 16)
    module = make_attention(
        size, border=border, window_size=4, expand_sizes=2, focal_levels=1, use_shift=True
    )
    moved = influence(module, size, (0, 0), shifted)
    opposite = torch.cat((moved[-2:].flatten(), moved[:, -2:].flatten()))
    assert (opposite.max() > 0) == (border == "wrap")


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("levels", "pool"), [(1, "fc"), (3, "max")])
def test_padding_matters_only_if_the_border_wraps(
    monkeypatch: pytest.MonkeyPatch, levels: int, pool: str, border: str, shifted: bool
) -> None:
    size = (11, 13)
    module = make_attention(size, border=border, pool=pool, focal_levels=levels, use_shift=True)
    x_BHWC = random_map(module, size)
    to_canvas = geometry.to_canvas

    def with_rubbish(x: Tensor, grid: WindowGrid) -> Tensor:
        inside = to_canvas(torch.ones_like(x[..., :1]), grid)
        return to_canvas(x, grid) + 5 * (1 - inside)

    with torch.no_grad():
        clean = module(x_BHWC, shifted)
        monkeypatch.setattr(geometry, "to_canvas", with_rubbish)
        littered = module(x_BHWC, shifted)
    assert clean.equal(littered) == (border == "mask")


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_constant_image_stays_constant_only_if_the_border_is_masked(
    pool: str, border: str, shifted: bool
) -> None:
    # all keys that exist are equal, so whatever their scores, the softmax returns their one value
    size = (11, 13)
    module = make_attention(size, border=border, pool=pool, focal_levels=3, use_shift=True)
    token = random_map(module, (1, 1), batch=1)
    with torch.no_grad():
        out_BHWC = module(token.expand(1, *size, -1), shifted)
        value = F.linear(token, module.qkv.weight, module.qkv.bias)[..., -module.stage.dim :]
        expected = module.proj(value).expand_as(out_BHWC)
    assert torch.allclose(out_BHWC, expected, rtol=1e-4, atol=1e-4) == (border == "mask")


@pytest.mark.parametrize("pool", POOLINGS)
def test_a_window_far_from_the_border_does_not_know_how_large_the_map_is(pool: str) -> None:
    module = make_attention(
        (30, 35), border="mask", pool=pool, focal_levels=3, use_shift=True, dtype=torch.float64
    )
    x_BHWC = random_map(module, (33, 38))
    with torch.no_grad():
        for shifted in (False, True):
            whole, cut = module(x_BHWC, shifted), module(x_BHWC[:, :24, :27], shifted)
            # windows of 5 whose coarse region, one window further, ends before the cut
            assert torch.allclose(whole[:, :13, :13], cut[:, :13, :13], rtol=1e-12, atol=1e-12)
            assert not torch.allclose(whole[:, 20:24, :13], cut[:, 20:, :13], rtol=1e-3, atol=1e-3)
