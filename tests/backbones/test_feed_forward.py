"""The MLP in chunks against its plain modules: output, every gradient, and when it stands aside."""

from collections.abc import Callable

import pytest
import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from focal_lab.backbones import feed_forward as module
from focal_lab.backbones.feed_forward import feed_forward

TOKENS = (3, 5, 7)  # 105 tokens


def make(dtype: torch.dtype = torch.float32, drop: float = 0.0) -> tuple[nn.LayerNorm, Mlp, Tensor]:
    torch.manual_seed(0)
    norm, mlp = nn.LayerNorm(12), Mlp(12, 40, drop=drop)
    for parameter in (*norm.parameters(), *mlp.parameters()):
        nn.init.normal_(parameter)
    return norm.to(dtype), mlp.to(dtype), torch.randn(*TOKENS, 12, dtype=dtype, requires_grad=True)


def outcome(run: Callable[[], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    out = run()
    torch.manual_seed(1)
    return [out, *torch.autograd.grad(out, inputs, torch.randn_like(out))]


def chunks(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(module, "CHUNK_TOKENS", tokens)
    monkeypatch.setattr(module, "CHUNK_BYTES", 0)


@pytest.mark.parametrize("tokens", [1000, 50, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_give_what_the_modules_give_with_all_gradients(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tokens: int
) -> None:
    norm, mlp, x = make(dtype)
    inputs = [x, *norm.parameters(), *mlp.parameters()]
    expected = outcome(lambda: mlp(norm(x)), inputs)
    chunks(monkeypatch, tokens)
    found = outcome(lambda: feed_forward(x, norm, mlp), inputs)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(
            value, wanted, rtol=tolerance, atol=tolerance * float(wanted.detach().abs().max())
        )
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(x, norm, mlp), expected[0], rtol=1e-5, atol=1e-5)


def test_gradients_are_the_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, mlp, x = make(torch.float64)
    chunks(monkeypatch, 40)
    names = [f"norm.{n}" for n, _ in norm.named_parameters()] + [
        f"mlp.{n}" for n, _ in mlp.named_parameters()
    ]
    both = nn.ModuleDict({"norm": norm, "mlp": mlp})
    assert names == [n for n, _ in both.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *p: module._FeedForward.apply(x, norm.eps, *p),
        (x.detach().flatten(0, 2)[:9].requires_grad_(), *both.parameters()),
    )


@pytest.mark.parametrize("frozen", ["x", "norm", "fc1", "fc2", "all but the bias of fc2", "all but the norm"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(
    monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    chunks(monkeypatch, 30)
    norm, mlp, x = make()
    parts = {
        "x": [x],
        "norm": [*norm.parameters()],
        "fc1": [*mlp.fc1.parameters()],
        "fc2": [*mlp.fc2.parameters()],
    }
    everything = [t for part in parts.values() for t in part]
    free = {"all but the bias of fc2": [mlp.fc2.bias], "all but the norm": parts["norm"]}.get(frozen)
    for tensor in everything:
        held = tensor is not free[0] and tensor not in set(free) if free else False
        tensor.requires_grad_(not held)
    if frozen in parts:
        for tensor in parts[frozen]:
            tensor.requires_grad_(False)
    inputs = [t for t in everything if t.requires_grad]
    expected = outcome(lambda: mlp(norm(x)), inputs)
    for value, wanted in zip(outcome(lambda: feed_forward(x, norm, mlp), inputs), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-4)


def stand_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> Tensor:
        raise AssertionError("took the way of chunks")

    monkeypatch.setattr(module, "_forward", refuse)


def test_plain_modules_take_the_way_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_aside(monkeypatch)
    norm, mlp, x = make(drop=0.1)
    mlp.eval()
    with pytest.raises(AssertionError, match="took the way of chunks"):
        feed_forward(x, norm, mlp)


class OtherLinear(nn.Linear):
    """Such as libraries for low-rank adaptation put in the place of a linear layer."""


def with_hook(norm: nn.LayerNorm, mlp: Mlp) -> None:
    mlp.fc1.register_forward_hook(lambda *_: None)


def with_backward_hook(norm: nn.LayerNorm, mlp: Mlp) -> None:
    mlp.act.register_full_backward_hook(lambda *_: None)


def with_other_layer(norm: nn.LayerNorm, mlp: Mlp) -> None:
    mlp.fc2 = OtherLinear(40, 12)


def without_biases(norm: nn.LayerNorm, mlp: Mlp) -> None:
    mlp.fc1.bias = norm.bias = None


def with_other_activation(norm: nn.LayerNorm, mlp: Mlp) -> None:
    mlp.act = nn.GELU(approximate="tanh")


def with_parametrization(norm: nn.LayerNorm, mlp: Mlp) -> None:
    torch.nn.utils.parametrizations.weight_norm(mlp.fc1)


@pytest.mark.parametrize(
    "change",
    [
        with_hook,
        with_backward_hook,
        with_other_layer,
        with_other_activation,
        without_biases,
        with_parametrization,
    ],
)
def test_modules_that_were_changed_are_called_as_they_are(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.LayerNorm, Mlp], None]
) -> None:
    stand_aside(monkeypatch)
    norm, mlp, x = make()
    change(norm, mlp)
    torch.testing.assert_close(feed_forward(x, norm, mlp), mlp(norm(x)), rtol=0, atol=0)


def test_dropout_at_work_autocast_and_other_devices_take_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_aside(monkeypatch)
    norm, mlp, x = make(drop=0.1)
    feed_forward(x, norm, mlp.train())
    norm, mlp, x = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(x, norm, mlp).dtype == torch.bfloat16
    assert feed_forward(x.to("meta"), norm.to("meta"), mlp.to("meta")).device.type == "meta"


def test_hooks_on_all_modules_see_the_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, mlp, x = make()
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    try:
        feed_forward(x, norm, mlp)
    finally:
        handle.remove()
    assert {norm, mlp, mlp.fc1, mlp.fc2} <= set(seen)
