"""Layers with adapters, hooks or quantization are called, not bypassed by reading their weights."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from support.attention_cases import make_attention, random_map
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

from focal_lab.tools.inspect.probabilities import network_layers, recompute

LINEAR = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "attn.pools.0.linear"]


class LowRank(nn.Module):
    """A layer plus a term of rank 2, as in peft's adapters."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.up = nn.Parameter(torch.randn(base.out_features, 2) / 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.down.t() @ self.up.t()
        return out


def make(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    name = "focal_micro_patch2_window7_28"
    model: nn.Module = timm.create_model(name, num_classes=5, depths=(1, 1, 1, 1), **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("attention", ["fast", "reference"])
@pytest.mark.parametrize("path", LINEAR)
def test_an_adapter_on_a_layer_is_what_merging_it_into_the_weight_is(path: str, attention: str) -> None:
    model = make(attention=attention)
    x_BCHW = torch.randn(2, 3, 28, 28)
    merged, changed = copy.deepcopy(model), 0.0
    for block, other in zip(
        (layer.blocks[0] for layer in model.layers), (layer.blocks[0] for layer in merged.layers), strict=True
    ):
        if path.startswith("attn.pools") and not block.attn.pools:
            continue
        parent, _, name = path.rpartition(".")
        adapter = LowRank(block.get_submodule(path))
        setattr(block.get_submodule(parent), name, adapter)
        other.get_submodule(path).weight.data += (adapter.up @ adapter.down).detach()
        changed += 1
    with torch.no_grad():
        found, expected = model(x_BCHW), merged(x_BCHW)
    assert changed
    assert not torch.allclose(expected, make()(x_BCHW), atol=1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def with_hook(layer: nn.Module) -> None:
    layer.register_forward_hook(lambda module, given, out: 2 * out)


def with_pre_hook(layer: nn.Module) -> None:
    layer.register_forward_pre_hook(lambda module, given: (2 * given[0],))


def with_own_forward(layer: nn.Module) -> None:
    original = layer.forward
    layer.forward = lambda x: 2 * original(x)


def with_weight_norm(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0 *= 2


def with_pruning(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.5)


@pytest.mark.parametrize(
    "change", [with_hook, with_pre_hook, with_own_forward, with_weight_norm, with_pruning]
)
@pytest.mark.parametrize(
    ("pool", "path"), [("fc", "qkv"), ("fc", "pools.0.linear"), ("conv", "pools.0.conv")]
)
def test_what_changes_a_layers_output_changes_pooled_tokens(
    pool: str, path: str, change: Callable[[nn.Module], None]
) -> None:
    module = make_attention((10, 10), pool=pool)
    layer = module.get_submodule(path)
    seen: list[Tensor] = []
    unchanged, x = copy.deepcopy(module), random_map(module, (10, 10))
    change(layer)
    parent, _, name = path.rpartition(".")
    holder = nn.Sequential(layer, Watch(seen))
    setattr(module.get_submodule(parent), name, holder)
    with torch.no_grad():
        watched = module(x)
        setattr(module.get_submodule(parent), name, layer)
        torch.testing.assert_close(module(x), watched)
        assert not torch.allclose(unchanged(x), watched, atol=1e-3)
        torch.testing.assert_close(recompute(module, x).output_BHWC, watched, rtol=1e-4, atol=1e-4)
    assert len(seen) == (2 if path == "qkv" else 1)


@pytest.mark.parametrize("how", ["hook of all modules", "forward of the class"])
@pytest.mark.parametrize("pool", ["fc", "conv"])
def test_what_changes_all_layers_changes_pooled_tokens(
    pool: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_attention((10, 10), pool=pool)
    doubled, x = copy.deepcopy(module), random_map(module, (10, 10))
    kinds = nn.Linear, nn.Conv2d
    with torch.no_grad():
        for layer in doubled.modules():
            for parameter in layer.parameters(recurse=False) if isinstance(layer, kinds) else ():
                parameter.mul_(2)
        expected = doubled(x)
        if how == "forward of the class":
            for kind in kinds:
                original = kind.forward
                changed = lambda layer, given, original=original: 2 * original(layer, given)  # noqa: E731
                monkeypatch.setattr(kind, "forward", changed)
            torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)
        else:
            hook = lambda layer, given, out: 2 * out if isinstance(layer, kinds) else None  # noqa: E731
            with register_module_forward_hook(hook):
                torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)


class Watch(nn.Module):
    """Records the tensors that pass."""

    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


@pytest.mark.filterwarnings("ignore")  # of torch, which announces that this moves to torchao
@pytest.mark.parametrize("pool", ["fc", "conv"])
def test_a_dynamically_quantized_network_runs_and_is_close(pool: str) -> None:
    model = make(focal_pool=pool)
    x_BCHW = torch.randn(2, 3, 28, 28)
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        found, expected = quantized(x_BCHW), model(x_BCHW)
    assert not isinstance(quantized.layers[0].blocks[0].attn.qkv, nn.Linear)
    assert (found - expected).norm() / expected.norm() < 0.1
    assert all(layer.attention.qkv is not None for layer in network_layers(quantized))


@pytest.mark.parametrize("sizes", [[(28, 28), (17, 22)]])
def test_a_norm_in_front_of_embeddings_that_was_changed_is_called_for_each_image(
    sizes: list[tuple[int, int]],
) -> None:
    model = make(border="mask", use_conv_embed=True, use_pre_norm=True)
    x_BCHW, valid_B2 = torch.randn(2, 3, 28, 28), torch.tensor(sizes)
    with torch.no_grad():
        expected = model.forward_features(x_BCHW, valid_B2)
        for layer in model.layers[1:]:
            layer.downsample.pre_norm.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(model.forward_features(x_BCHW, valid_B2), expected, rtol=1e-4, atol=1e-4)
        for layer in model.layers[1:]:
            layer.downsample.pre_norm = nn.Sequential(layer.downsample.pre_norm, nn.Identity())
        torch.testing.assert_close(model.forward_features(x_BCHW, valid_B2), expected, rtol=1e-4, atol=1e-4)
