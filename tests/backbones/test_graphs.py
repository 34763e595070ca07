"""Graph capture: torch.compile, torch.export, ONNX, torch.fx, tracing, and fake tensors."""

import copy
import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torchvision.models.feature_extraction import create_feature_extractor

import focal_lab  # noqa: F401
from focal_lab.backbones.model import FocalTransformer

NARROW: dict[str, Any] = {
    "embed_dim": 24,
    "num_heads": (3, 3, 6, 6),
    "depths": (2, 1, 2, 1),
    "img_size": 112,
    "num_classes": 5,
}
TINY = "focal_tiny_patch4_window7_224"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "micro": ("focal_micro_patch2_window7_28", {"num_classes": 5}),
    "shifted": (TINY, NARROW | {"use_shift": True}),
    "masked": (
        TINY,
        NARROW | {"border": "mask", "focal_pool": "max", "use_shift": True, "img_size": 100},
    ),
    "text": (
        TINY,
        NARROW | {"coarse_bias": "window", "level_overlap": "exclude", "focal_levels": (3, 2, 2, 1)},
    ),
    "conv": ("focal_conv_tiny_patch4_window7_224", NARROW | {"use_layerscale": True}),
    "swin": ("focal_swin_tiny_patch4_window7_224", NARROW),
}
EVERY = pytest.mark.parametrize("case", CASES)


def make(case: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    name, chosen = CASES[case]
    model: nn.Module = timm.create_model(name, **chosen | options)
    for parameter_name, parameter in model.named_parameters():
        if "bias" in parameter_name:
            nn.init.normal_(parameter, std=0.3)  # position biases that matter
    return model


def images(model: nn.Module, batch: int = 2, seed: int = 1) -> Tensor:
    size = model.options.img_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def step(function: Any, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Logits, and the gradient of every parameter."""
    model.zero_grad(set_to_none=True)
    logits = function(x)
    logits.square().sum().backward()
    return {"logits": logits.detach()} | {name: p.grad for name, p in model.named_parameters()}


@EVERY
def test_the_whole_model_and_its_training_step_compile_to_one_graph(case: str) -> None:
    torch._dynamo.reset()
    model = make(case).train()
    x = images(model)
    expected = step(model, model, x)
    # "aot_eager" also traces backward; it is slow, and the same for the other three
    backend = "aot_eager" if case in ("micro", "masked", "text") else "eager"
    found = step(torch.compile(model, backend=backend, fullgraph=True), model, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=name)


def two_blocks() -> FocalTransformer:
    """The smallest network with everything in it: a ring, pooled tokens, a shift, a masked border."""
    torch.manual_seed(0)
    return FocalTransformer(
        num_classes=5,
        img_size=20,
        patch_size=2,
        embed_dim=8,
        depths=(2,),
        num_heads=2,
        window_size=4,
        expand_sizes=1,
        focal_windows=3,
        border="mask",
        use_shift=True,
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
def test_the_default_backend_compiles_a_training_step() -> None:
    torch._dynamo.reset()
    model = two_blocks().train()
    x = images(model)
    expected = step(model, model, x)
    found = step(torch.compile(model, fullgraph=True), model, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_a_compiled_model_accepts_images_of_another_size() -> None:
    torch._dynamo.reset()
    model = two_blocks().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for size in (20, 26, 34):
            x = torch.randn(1, 3, size, size)
            torch.testing.assert_close(compiled(x), model(x))


@EVERY
def test_an_exported_model_takes_any_batch(case: str) -> None:
    model = make(case).eval()
    x = images(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
    with torch.no_grad():
        for count in (1, 2, 5):
            pics = images(model, count, seed=count)
            torch.testing.assert_close(exported(pics), model(pics), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "dynamic"), [("micro", False), ("micro", True), ("two blocks", True)], ids=str
)
def test_onnxruntime_computes_the_same(case: str, dynamic: bool, tmp_path: Path) -> None:
    model = two_blocks() if case == "two blocks" else make(case, depths=(1, 1, 1, 1))
    model.eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (images(model),), dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 5) if dynamic else (2,):
        pics = images(model, count, seed=count)
        (found,) = session.run(None, {session.get_inputs()[0].name: pics.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, model(pics).numpy(), rtol=1e-4, atol=1e-4)


@EVERY
def test_a_traced_model_goes_through_a_file_and_takes_any_batch(case: str) -> None:
    model = make(case).eval()
    stored = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and sizes become constants
        torch.jit.save(torch.jit.trace(model, images(model)), stored)
        stored.seek(0)
        loaded = torch.jit.load(stored)
    with torch.no_grad():
        pics = images(model, 3)
        torch.testing.assert_close(loaded(pics), model(pics), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripting_is_refused_with_the_reason() -> None:
    with pytest.raises(RuntimeError, match=r"use torch\.export or torch\.jit\.trace"):
        torch.jit.script(make("micro"))


@EVERY
def test_torch_fx_extracts_features(case: str) -> None:
    model = make(case).eval()
    x = images(model)
    leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    extractor = create_feature_extractor(
        model, {"layers.1": "second", "head": "logits"}, tracer_kwargs=leaves
    )
    with torch.no_grad():
        found = extractor(x)
        torch.testing.assert_close(found["logits"], model(x))
        (second,) = model.forward_intermediates(x, [1], intermediates_only=True, output_fmt="NHWC")
        torch.testing.assert_close(found["second"], second)


@EVERY
def test_on_fake_cuda_tensors_the_forward_pass_stays_on_that_device(case: str) -> None:
    # Autograd asks for CUDA's driver as soon as it runs backward there, even on fake tensors: gradients are
    # checked on the meta device below, and on a real GPU where there is one.
    model = make(case)
    size = model.options.img_size
    with FakeTensorMode(), torch.no_grad():
        state = {
            name: torch.empty(value.shape, dtype=value.dtype, device="cuda")
            for name, value in [*model.named_parameters(), *model.named_buffers()]
        }
        x = torch.empty(2, 3, size, size, device="cuda")
        for pics in (x, x[..., 9:, 13:]):
            logits = functional_call(model, state, (pics,))
            assert (logits.shape, logits.device.type) == ((2, 5), "cuda")


@EVERY
def test_no_tensor_of_forward_or_backward_is_made_on_another_device(case: str) -> None:
    # on the meta device, an operand that was left on the CPU is an error
    name, options = CASES[case]
    model = timm.create_model(name, **options, device="meta")
    size = model.options.img_size
    model(torch.empty(2, 3, size, size, device="meta")).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EVERY
def test_a_gpu_computes_what_the_cpu_computes(case: str) -> None:
    model = make(case).double().eval()
    x = images(model).double()
    expected = step(model, model, x)
    model = copy.deepcopy(model).cuda()  # `cuda` would take the expected gradients along
    for name, value in step(model, model, x.cuda()).items():
        torch.testing.assert_close(value.cpu(), expected[name], msg=name)
