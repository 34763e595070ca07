"""What runs on the processor in a way of its own: equal to the general way, and safe to mix with anything."""

import copy
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from attention_cases import assert_equal_outcomes, make_attention, outcome, random_map
from torch import Tensor, nn

from focal_lab.backbones import attention, attention_kernels, embedding, pooling, projection
from focal_lab.backbones.attention_kernels import attend_at_once
from focal_lab.backbones.embedding import ConvDownsample
from focal_lab.backbones.pooling import LinearPool
from focal_lab.backbones.scratch import KEPT_BYTES, Scratch, release, scratch_of

MICRO = "focal_micro_patch2_window7_28"


def never(*_: object) -> bool:
    return False


def both_ways(
    monkeypatch: pytest.MonkeyPatch, where: Any, run: Callable[[], Tensor], inputs: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients as they are computed, and with the way of the processor closed."""
    results = []
    for closed in (False, True):
        if closed:
            monkeypatch.setattr(where, "in_plain_call", never)
        out = run()
        torch.manual_seed(1)
        results.append([out, *torch.autograd.grad(out, inputs, torch.randn_like(out))])
    return results[0], results[1]


@pytest.mark.parametrize("columns", [1, 4, pooling._SPARSE_COLUMNS + 1])
def test_pooling_of_rows_is_the_pooling_of_sub_windows(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    torch.manual_seed(0)
    pool = LinearPool((3, 2))
    x_BHWC = torch.randn(2, 6, 2 * columns, 5, requires_grad=True)
    ours, general = both_ways(monkeypatch, pooling, lambda: pool(x_BHWC), [x_BHWC, *pool.parameters()])
    for value, wanted in zip(ours, general, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("weight", "bias")])
@pytest.mark.parametrize("bias", [True, False])
def test_projecting_tokens_together_is_projecting_each(
    monkeypatch: pytest.MonkeyPatch, bias: bool, frozen: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 12, bias=bias)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name not in frozen)
    maps = [torch.randn(2, *size, 4, requires_grad=True) for size in ((6, 4), (3, 2), (1, 1))]
    inputs = [*maps, *(p for p in layer.parameters() if p.requires_grad)]

    def run() -> Tensor:
        qkv_BHWC, coarse = projection.project(maps[0], maps[1:], layer)
        assert [kv.shape for kv in coarse] == [(2, 3, 2, 8), (2, 1, 1, 8)]
        return torch.cat([t.flatten() for t in (qkv_BHWC, *coarse)])

    ours, general = both_ways(monkeypatch, projection, run, inputs)
    for value, wanted in zip(ours, general, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_downsampling_as_a_product_is_the_convolution(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], cut: bool
) -> None:
    torch.manual_seed(0)
    module = ConvDownsample(4, overlap=False, pre_norm=False, cut=cut)
    x_BHWC = torch.randn(2, *size, 4, requires_grad=True)
    inputs = [x_BHWC, *module.parameters()]
    ours, general = both_ways(monkeypatch, embedding, lambda: module(x_BHWC), inputs)
    for value, wanted in zip(ours, general, strict=True):
        assert value.shape == wanted.shape
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)


def test_hooks_of_the_convolution_are_called() -> None:
    module, seen = ConvDownsample(4, overlap=False, pre_norm=False, cut=False), []
    module.proj.register_forward_hook(lambda *_: seen.append("called"))
    module(torch.randn(1, 4, 4, 4))
    assert seen == ["called"]


def test_memory_from_inference_mode_serves_training() -> None:
    model = timm.create_model(MICRO)
    picture = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        expected = model(picture)
    out = model(picture)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_threads_do_not_share_memory() -> None:
    torch.manual_seed(0)
    model = timm.create_model(MICRO).eval()
    pictures = [torch.randn(3, 3, 28, 28) for _ in range(4)]
    with torch.no_grad():
        expected = [model(p) for p in pictures]
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            found[number] = all(
                torch.allclose(model(pictures[number]), expected[number], atol=1e-5) for _ in range(5)
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


def test_scratch_memory_is_kept_while_it_is_small() -> None:
    scratch = Scratch(torch.uint8)
    first = scratch.take("one", (4, 5))
    assert scratch.take("one", (2, 3)).data_ptr() == first.data_ptr()
    assert scratch.take("other", (2, 3)).data_ptr() != first.data_ptr()
    assert scratch.take("large", (KEPT_BYTES + 1,)).shape == (KEPT_BYTES + 1,)
    assert set(scratch.blocks) == {"one", "other"}


def test_scratch_memory_is_released() -> None:
    timm.create_model(MICRO)(torch.randn(1, 3, 28, 28))
    assert scratch_of(torch.float32).blocks
    release()
    assert not scratch_of(torch.float32).blocks


@pytest.mark.parametrize("border", ["wrap", "mask"])
def test_keys_gathered_at_once_are_gathered_again_instead_of_kept(
    monkeypatch: pytest.MonkeyPatch, border: str
) -> None:
    module = make_attention((9, 13), border=border, use_shift=True, focal_levels=3)
    for bias in module.position_biases():
        bias.requires_grad_(False)  # torch's fused attention on the processor has no gradient for biases
    x_BHWC = random_map(module, (9, 13)).requires_grad_()
    expected = torch.autograd.grad(module(x_BHWC, True).square().sum(), x_BHWC)[0]
    calls = []
    original = attention_kernels._gather_keys
    monkeypatch.setattr(
        attention_kernels, "_gather_keys", lambda *args: calls.append(args[2]) or original(*args)
    )
    monkeypatch.setattr(attention, "attend", attend_at_once)
    out_BHWC = module(x_BHWC, True)
    assert calls == [0, 1]
    found = torch.autograd.grad(out_BHWC.square().sum(), x_BHWC)[0]
    assert sorted(calls) == [0, 0, 1, 1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_checkpointing_sees_the_keys_that_our_own_hooks_would_gather_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = make_attention((9, 13), border="mask", use_shift=True, focal_levels=3)
    for bias in module.position_biases():
        bias.requires_grad_(False)
    gathered: list[int] = []
    original = attention_kernels._gather_keys

    def gather(*arguments: Any) -> Tensor:
        keys = original(*arguments)
        gathered.append(keys.data_ptr())
        return keys

    monkeypatch.setattr(attention_kernels, "_gather_keys", gather)
    monkeypatch.setattr(attention, "attend", attend_at_once)
    seen: list[int] = []
    x_BHWC = random_map(module, (9, 13)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.data_ptr()) or t, lambda t: t):
        module(x_BHWC, True)
    assert len(gathered) == 2
    assert set(gathered) <= set(seen)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_position_biases_learn_alone_on_a_gpu() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True)
    x_BHWC = random_map(module, (9, 13))
    for parameter in module.parameters():
        parameter.requires_grad_(any(parameter is bias for bias in module.position_biases()))
    expected = torch.autograd.grad(module(x_BHWC, True).square().sum(), module.position_biases())
    gpu = copy.deepcopy(module).cuda()
    found = torch.autograd.grad(gpu(x_BHWC.cuda(), True).square().sum(), gpu.position_biases())
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value.cpu(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_keeps_no_gathered_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_attention((56, 56), window_size=7, expand_sizes=3).cuda()
    x_BHWC = torch.randn(8, 56, 56, 8, device="cuda", requires_grad=True)

    def kept() -> int:
        before = torch.cuda.memory_allocated()
        out_BHWC = module(x_BHWC)
        assert out_BHWC.requires_grad
        return torch.cuda.memory_allocated() - before

    kept()  # masks and workspaces
    gathered = 2 * x_BHWC.numel() * 4 * module.stage.keys / 49
    fewer = kept()
    monkeypatch.setattr(attention_kernels, "_gathered_again", lambda *_: nullcontext())
    map_of_qkv = 3 * x_BHWC.numel() * 4  # kept instead, to gather from
    assert kept() - fewer > 0.9 * (gathered - map_of_qkv)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_first_call_within_a_captured_gpu_graph_leaves_no_empty_masks() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True).cuda().eval()
    x_BHWC = random_map(module, (9, 13)).cuda()
    with torch.no_grad():
        expected = copy.deepcopy(module)(x_BHWC, True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = module(x_BHWC, True)
        torch.testing.assert_close(module(x_BHWC, True), expected)
        graph.replay()
        torch.testing.assert_close(captured, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_each_picture_and_forward_derivatives_take_the_general_way() -> None:
    module = make_attention((9, 13), border="mask", use_shift=True, dtype=torch.float64)
    x_BHWC = random_map(module, (9, 13))
    parameters = dict(module.named_parameters())

    def loss(x_HWC: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, parameters, (x_HWC[None], True)).square().sum()
        return out

    each = torch.func.vmap(torch.func.grad(loss))(x_BHWC)
    x_BHWC.requires_grad_()
    (expected,) = torch.autograd.grad(module(x_BHWC, True).square().sum(), x_BHWC)
    torch.testing.assert_close(each, expected)
    direction = torch.randn_like(x_BHWC[0])
    _, derivative = torch.func.jvp(loss, (x_BHWC[0].detach(),), (direction,))
    torch.testing.assert_close(derivative, (expected[0] * direction).sum())


def test_the_reference_is_plain_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model(MICRO, attention="reference")
    seen: list[nn.Module] = []

    def watch(x: Tensor, norm: nn.Module, mlp: nn.Module) -> Tensor:
        seen.append(mlp)
        return x

    monkeypatch.setattr("focal_lab.backbones.focal.feed_forward", watch)
    model(torch.randn(1, 3, 28, 28))
    assert not seen
    copy.deepcopy(timm.create_model(MICRO))(torch.randn(1, 3, 28, 28))
    assert len(seen) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_dtype_after_the_other(dtype: torch.dtype) -> None:
    module = make_attention((9, 13), use_shift=True, dtype=dtype)
    x_BHWC = random_map(module, (9, 13))
    reference = copy.deepcopy(module)
    reference.attention = "reference"
    assert_equal_outcomes(outcome(module, x_BHWC, True), outcome(reference, x_BHWC, True))


@pytest.mark.parametrize("border", ["wrap", "mask"])
@pytest.mark.parametrize("size", [(28, 28), (37, 50), (61, 18)])
def test_whole_networks_train_alike_on_the_fast_and_the_reference_path(
    size: tuple[int, int], border: str
) -> None:
    torch.manual_seed(0)
    # with a wrapped border the last stage's window is a single token: nothing to pool twice
    levels = 3 if border == "mask" else 2
    options = {"border": border, "use_shift": True, "focal_levels": levels, "num_classes": 5}
    fast = timm.create_model(MICRO, **options).double()
    reference = timm.create_model(MICRO, attention="reference", **options).double()
    reference.load_state_dict(fast.state_dict())
    pictures = torch.randn(3, 3, *size, dtype=torch.float64)
    results = []
    for model in (fast, reference):
        logits = model(pictures)
        torch.nn.functional.cross_entropy(logits, torch.arange(3)).backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for value, wanted in zip(*results, strict=True):
        assert value is not None
        assert wanted is not None
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-11)
