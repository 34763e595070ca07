"""Attention of whole networks on the CPU: equal to the reference, and safe with other features of torch."""

import copy
import threading
from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from support.attention_cases import assert_equal_outcomes, make_attention, outcome, random_map, reference_of
from torch import Tensor, nn

from focal_lab.backbones.attention import fused, layer
from focal_lab.backbones.attention.fused import attend_at_once

MICRO = "focal_micro_patch2_window7_28"


def test_memory_from_inference_mode_serves_training() -> None:
    model = timm.create_model(MICRO)
    image = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        expected = model(image)
    out = model(image)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_threads_do_not_share_memory() -> None:
    torch.manual_seed(0)
    model = timm.create_model(MICRO).eval()
    images = [torch.randn(3, 3, 28, 28) for _ in range(4)]
    with torch.no_grad():
        expected = [model(p) for p in images]
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            found[number] = all(
                torch.allclose(model(images[number]), expected[number], atol=1e-5) for _ in range(5)
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


@pytest.mark.parametrize("border", ["wrap", "mask"])
def test_keys_gathered_at_once_are_gathered_again_instead_of_kept(
    monkeypatch: pytest.MonkeyPatch, border: str
) -> None:
    module = make_attention((9, 13), border=border, use_shift=True, focal_levels=3)
    for bias in module.position_biases():
        bias.requires_grad_(False)  # torch's fused attention on the CPU has no gradient for biases
    x_BHWC = random_map(module, (9, 13)).requires_grad_()
    expected = torch.autograd.grad(module(x_BHWC, True).square().sum(), x_BHWC)[0]
    calls = []
    original = fused.gather_keys
    monkeypatch.setattr(fused, "gather_keys", lambda *args: calls.append(args[2]) or original(*args))
    monkeypatch.setattr(layer, "attend", attend_at_once)
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
    original = fused.gather_keys

    def gather(*arguments: Any) -> Tensor:
        keys = original(*arguments)
        gathered.append(keys.data_ptr())
        return keys

    monkeypatch.setattr(fused, "gather_keys", gather)
    monkeypatch.setattr(layer, "attend", attend_at_once)
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
    monkeypatch.setattr(fused, "_gathered_again", lambda *_: nullcontext())
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
def test_per_image_gradients_and_forward_derivatives_use_the_general_path() -> None:
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
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    results = []
    for model in (fast, reference):
        logits = model(images)
        torch.nn.functional.cross_entropy(logits, torch.arange(3)).backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for value, wanted in zip(*results, strict=True):
        assert value is not None
        assert wanted is not None
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("batch", "size", "options"),
    [
        (0, (28, 28), {}),
        (1, (37, 50), {"border": "mask", "use_shift": True}),
        (7, (18, 33), {"window_size": 1, "expand_sizes": 0, "border": "mask"}),
        (64, (28, 28), {"coarse_bias": "window", "level_overlap": "exclude"}),
        (64, (20, 12), {"focal_pool": "conv", "window_size": 3, "expand_sizes": 1, "border": "mask"}),
    ],
)
def test_batches_of_any_size_train_alike_on_the_fast_and_the_reference_path(
    batch: int, size: tuple[int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    given = {"num_classes": 5, "focal_levels": 2, "depths": (1, 1, 1, 1)} | options
    reference = timm.create_model(MICRO, attention="reference", **given)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.2)
    fast = timm.create_model(MICRO, **given)
    fast.load_state_dict(reference.state_dict())
    images = torch.randn(batch, 3, *size)
    results = []
    for model in (fast, reference):
        logits = model(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for value, wanted in zip(*results, strict=True):
        assert value is not None
        assert wanted is not None
        assert (value - wanted).norm() <= 1e-4 * wanted.norm()


def test_attention_of_a_large_batch_with_small_windows_equals_the_reference() -> None:
    # regression: buffers above 64 MiB were reallocated although their contents were still needed
    options = {"window_size": 2, "expand_sizes": 0, "embed_dim": 48, "num_heads": 1}
    module = make_attention((8, 8), border="mask", **options)
    reference = copy.deepcopy(module)
    reference.attention = "reference"
    x_BHWC = random_map(module, (8, 8), batch=1000)
    assert_equal_outcomes(outcome(module, x_BHWC), outcome(reference, x_BHWC))


def test_few_windows_are_attended_to_as_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_attention((10, 10), border="mask", use_shift=True)
    x_BHWC = random_map(module, (10, 10))
    monkeypatch.setattr(fused, "FEW_WINDOWS", 4)
    monkeypatch.setattr(fused, "attend_chunked", None)
    assert_equal_outcomes(outcome(module, x_BHWC, False), outcome(reference_of(module), x_BHWC, False))
