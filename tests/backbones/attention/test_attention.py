"""The fast attention against the reference: outputs and every gradient, and how it behaves in training."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.attention_cases import (
    assert_equal_outcomes,
    make_attention,
    outcome,
    random_map,
    random_size,
    reference_of,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from focal_lab.backbones import geometry
from focal_lab.backbones.attention import fused, layer
from focal_lab.backbones.attention.fused import attend, attend_at_once
from focal_lab.backbones.attention.key_maps import AttentionLayout
from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.counting import count_parameters, count_released_parameters
from focal_lab.backbones.cpu import attention as attention_chunked
from focal_lab.backbones.options import BORDERS, POOLINGS, Size

CASES = [
    (pool, border, shifted, levels, expand)
    for pool, border, shifted, levels, expand in itertools.product(
        POOLINGS, BORDERS, (False, True), (1, 2, 3), (0, 2)
    )
    if levels > 1 or pool == "fc"
]
KINDS = pytest.mark.parametrize(
    ("pool", "border", "shifted", "levels", "expand"), CASES, ids=lambda value: str(value)
)


def make_case(pool: str, border: str, shifted: bool, levels: int, expand: int) -> tuple[FocalAttention, Size]:
    size = random_size((pool, border, shifted, levels, expand))
    module = make_attention(
        size, border=border, pool=pool, use_shift=shifted, focal_levels=levels, expand_sizes=expand
    )
    return module, size


@KINDS
def test_fast_attention_equals_the_reference_with_all_gradients(
    pool: str, border: str, shifted: bool, levels: int, expand: int
) -> None:
    module, size = make_case(pool, border, shifted, levels, expand)
    x_BHWC = random_map(module, size)
    expected = outcome(reference_of(module), x_BHWC, shifted)
    assert len(expected) == 2 + len(list(module.parameters()))
    assert_equal_outcomes(outcome(module, x_BHWC, shifted), expected)


@KINDS
def test_attention_at_once_equals_the_reference_with_all_gradients(
    monkeypatch: pytest.MonkeyPatch, pool: str, border: str, shifted: bool, levels: int, expand: int
) -> None:
    module, size = make_case(pool, border, shifted, levels, expand)
    x_BHWC = random_map(module, size)
    expected = outcome(reference_of(module), x_BHWC, shifted)
    monkeypatch.setattr(layer, "attend", attend_at_once)
    assert_equal_outcomes(outcome(module, x_BHWC, shifted), expected)


@pytest.mark.parametrize("fast", [attend, attend_at_once])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("coarse_bias", "overlap"), [("window", "keep"), ("query", "exclude"), ("window", "exclude")]
)
def test_fast_attention_equals_the_reference_with_the_options_of_the_papers_text(
    monkeypatch: pytest.MonkeyPatch, coarse_bias: str, overlap: str, border: str, fast: Any
) -> None:
    size = (9, 13)
    module = make_attention(
        size, border=border, coarse_bias=coarse_bias, level_overlap=overlap, focal_levels=3, use_shift=True
    )
    assert any(level.hidden for level in module.stage.levels) == (overlap == "exclude")
    x_BHWC = random_map(module, size)
    monkeypatch.setattr(layer, "attend", fast)
    for shifted in (False, True):
        expected = outcome(reference_of(module), x_BHWC, shifted)
        assert len(expected) == 2 + len(list(module.parameters()))
        assert_equal_outcomes(outcome(module, x_BHWC, shifted), expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("size", [(7, 13), (3, 4), (2, 17), (23, 6), (1, 1)])
def test_any_map_runs_through_attention_made_for_another(size: Size, border: str) -> None:
    module = make_attention((11, 12), border=border, use_shift=True, focal_levels=3)
    x_BHWC = random_map(module, size)
    for shifted in (False, True):
        with torch.no_grad():
            out_BHWC, expected = module(x_BHWC, shifted), reference_of(module)(x_BHWC, shifted)
        assert out_BHWC.shape == x_BHWC.shape
        torch.testing.assert_close(out_BHWC, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", ["a row of windows", "two rows of windows", "two images"])
@pytest.mark.parametrize("border", BORDERS)
def test_every_way_of_cutting_into_chunks_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, border: str, chunk: str
) -> None:
    module = make_attention((16, 12), border=border, use_shift=True, focal_levels=3)
    x_BHWC = random_map(module, (16, 12), batch=5)
    expected = outcome(reference_of(module), x_BHWC, True)
    rows, columns = geometry.lay_windows(module.stage, (16, 12), True, border).windows
    row_bytes = columns * module.num_heads * (25 + 2 * 4) * module.stage.keys * 4
    chunk_bytes, chunks = {
        "a row of windows": (1, {(1, 1)}),
        "two rows of windows": (2 * row_bytes, {(1, 2), (1, rows % 2 or 2)}),
        "two images": (2 * rows * row_bytes, {(2, rows), (1, rows)}),
    }[chunk]
    seen = set()

    def record(*arguments: Any) -> Iterator[attention_chunked._Chunk]:
        for chosen in original(*arguments):
            seen.add((chosen.images.stop - chosen.images.start, chosen.rows.stop - chosen.rows.start))
            yield chosen

    original = attention_chunked._chunks
    monkeypatch.setattr(attention_chunked, "_chunks", record)
    monkeypatch.setattr(attention_chunked, "CHUNK_BYTES", chunk_bytes)
    assert_equal_outcomes(outcome(module, x_BHWC, True), expected)
    assert seen == chunks


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shifted", [False, True])
def test_gradients_are_the_derivatives(border: str, shifted: bool) -> None:
    module = make_attention(
        (5, 3),
        border=border,
        dtype=torch.float64,
        embed_dim=4,
        window_size=2,
        expand_sizes=1,
        focal_windows=1,
        use_shift=True,
    )
    names = [name for name, _ in module.named_parameters()]

    def function(x_BHWC: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (x_BHWC, shifted))
        return out

    inputs = [random_map(module, (5, 3), batch=1), *(p.detach() for p in module.parameters())]
    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs], fast_mode=True)


def test_attention_is_deterministic_to_the_last_bit() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True)
    x_BHWC = random_map(module, (9, 13), batch=4)
    one, other = outcome(module, x_BHWC, True), outcome(module, x_BHWC, True)
    assert all(one[name].equal(other[name]) for name in one)


def test_images_of_a_batch_do_not_attend_to_each_other() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True)
    x_BHWC = random_map(module, (9, 13), batch=3)
    with torch.no_grad():
        together = module(x_BHWC, True)
        alone = torch.cat([module(image[None], True) for image in x_BHWC])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["fast", "reference"])
def test_dropped_attention_weights_differ_per_step_and_average_to_the_whole(attention: str) -> None:
    module = make_attention((6, 7), attn_drop=0.2, attention=attention)
    x_BHWC = random_map(module, (6, 7), batch=1)
    with torch.no_grad():
        evaluated = module.eval()(x_BHWC)
        assert evaluated.equal(module(x_BHWC))
        module.train()
        torch.manual_seed(0)
        draws = torch.stack([module(x_BHWC) for _ in range(400)])
    assert not draws[0].equal(draws[1])
    spread = draws.std(0).norm() / evaluated.norm()
    assert spread > 0.05
    assert (draws.mean(0) - evaluated).norm() / evaluated.norm() < 3 * spread / 20


def test_dropped_attention_weights_still_have_gradients() -> None:
    module = make_attention((6, 7), attn_drop=0.2).train()
    found = outcome(module, random_map(module, (6, 7)))
    assert len(found) == 2 + len(list(module.parameters()))
    assert all(value.isfinite().all() and value.abs().sum() > 0 for value in found.values())


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("border", BORDERS)
def test_bfloat16_autocast_stays_close_to_float32(border: str, pool: str) -> None:
    module = make_attention((9, 13), border=border, pool=pool, use_shift=True)
    for parameter in module.parameters():
        parameter.data.mul_(0.4)  # scores of about one, as in a trained network
    x_BHWC = random_map(module, (9, 13))
    expected = outcome(module, x_BHWC, True)
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(module, x_BHWC, True)
    assert found["output"].dtype == torch.bfloat16
    for name, value in found.items():
        assert value.isfinite().all(), name
        assert (value - expected[name]).norm() / expected[name].norm() < 0.05, name


def test_a_step_after_validation_in_inference_mode_trains_all_the_same() -> None:
    # Lightning validates in inference mode, first before any training: what is cached then
    # (masks, indices) must work with autograd, too
    module = make_attention((9, 13), border="mask", pool="mean", use_shift=True)
    x_BHWC = random_map(module, (9, 13))
    with torch.inference_mode():
        module(x_BHWC, True)
    expected = outcome(
        reference_of(make_attention((9, 13), border="mask", pool="mean", use_shift=True)), x_BHWC, True
    )
    assert_equal_outcomes(outcome(module, x_BHWC, True), expected)


def test_a_map_size_seen_before_is_looked_up_and_the_store_stays_small() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True)
    with torch.no_grad():
        module(random_map(module, (9, 13)), True)
        kept = dict(module._masks)
        module(random_map(module, (9, 13)), True)
        assert module._masks.keys() == kept.keys()
        assert all(module._masks[key] is value for key, value in kept.items())
        for height in range(6, 60):
            module(random_map(module, (height, 6), batch=1), True)
    assert len(module._masks) <= 64


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors_keep_their_device_and_leave_nothing_behind(border: str, device: str) -> None:
    module = make_attention((9, 13), border=border, pool="mean", use_shift=True)
    # autograd wants a driver for a device as soon as it keeps a graph on it; see the meta device below
    with FakeTensorMode(), torch.set_grad_enabled(device == "cpu"):
        parameters = {
            name: torch.empty(value.shape, device=device, requires_grad=True)
            for name, value in module.named_parameters()
        }
        buffers = {
            name: torch.empty(value.shape, device=device, dtype=value.dtype)
            for name, value in module.named_buffers()
        }
        x_BHWC = torch.empty(2, 9, 13, 8, device=device, requires_grad=True)
        out_BHWC = functional_call(module, parameters | buffers, (x_BHWC, True))
        assert (out_BHWC.shape, out_BHWC.device.type) == (x_BHWC.shape, device)
        if device == "cpu":
            out_BHWC.sum().backward()
            assert all(value.grad is not None for value in (x_BHWC, *parameters.values()))
    assert not module._masks
    x_BHWC = random_map(module, (9, 13))
    assert_equal_outcomes(outcome(module, x_BHWC, True), outcome(reference_of(module), x_BHWC, True))


@pytest.mark.parametrize("border", BORDERS)
def test_the_meta_device_computes_nothing_but_shapes_and_devices_of_all_gradients(border: str) -> None:
    module = make_attention((9, 13), border=border, pool="mean", use_shift=True).to("meta")
    x_BHWC = torch.empty(2, 9, 13, 8, device="meta", requires_grad=True)
    module(x_BHWC, True).sum().backward()
    for value in (x_BHWC, *module.parameters()):
        assert value.grad is not None
        assert (value.grad.shape, value.grad.device.type) == (value.shape, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("border", BORDERS)
def test_a_gpu_computes_what_the_cpu_computes(border: str) -> None:
    module = make_attention((9, 13), border=border, use_shift=True, focal_levels=3, dtype=torch.float64)
    x_BHWC = random_map(module, (9, 13))
    expected = outcome(module, x_BHWC, True)
    found = outcome(copy.deepcopy(module).cuda(), x_BHWC.cuda(), True)
    assert_equal_outcomes({name: value.cpu() for name, value in found.items()}, expected)


def test_devices_other_than_the_cpu_take_torchs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(fused, "attend_at_once", lambda x, *rest: used.append(x.device.type) or x)
    module = make_attention((4, 4), border="mask", focal_levels=1, expand_sizes=0)
    layout = AttentionLayout(geometry.lay_windows(module.stage, (4, 4), False, "mask"), 2, 1.0)
    bias_NQK = torch.empty(2, 16, 16, device="meta")
    attend(torch.empty(1, 4, 4, 24, device="meta"), [], bias_NQK, None, layout)
    assert used == ["meta"]


def test_the_printed_module_shows_what_it_computes() -> None:
    assert "keys=90, window=(5, 5), border=mask" in repr(make_attention((11, 11), border="mask"))


@pytest.mark.parametrize(("window", "expand", "keys"), [(7, 3, 132), (14, 3, 300), (7, 0, 0), (5, 2, 64)])
def test_released_ring_keys_are_counted_with_their_doubles(window: int, expand: int, keys: int) -> None:
    module = make_attention((30, 30), window_size=window, expand_sizes=expand)
    heads, queries, ring = module.num_heads, window**2, module.stage.fine_keys - window**2
    more = count_released_parameters(module) - count_parameters(module)
    assert more == heads * queries * (keys - ring)
