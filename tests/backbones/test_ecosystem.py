"""Focal backbones in segmentation_models_pytorch, torchvision's FPN, and DDP with two processes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

import focal_lab  # noqa: F401

NARROW: dict[str, Any] = {"embed_dim": 24, "num_heads": (3, 3, 6, 6), "depths": (1, 1, 2, 1)}
NAMES = pytest.mark.parametrize(
    "name",
    [
        "focal_tiny_patch4_window7_224",
        "focal_conv_tiny_patch4_window7_224",
        "focal_swin_tiny_patch4_window7_224",
    ],
)


@NAMES
@pytest.mark.parametrize("decoder", ["UPerNet", "FPN", "Segformer"])
def test_segmentation_models_take_it_as_encoder(name: str, decoder: str) -> None:
    model = getattr(smp, decoder)(f"tu-{name}", encoder_weights=None, classes=7, border="mask", **NARROW)
    size = (96, 160)
    out = model(torch.randn(2, 3, *size))
    assert out.shape == (2, 7, *size)
    out.mean().backward()
    unused = [
        key
        for key, parameter in model.encoder.named_parameters()
        if parameter.grad is None and not key.startswith(("model.norm.", "model.head."))
    ]
    assert not unused


@NAMES
def test_torchvisions_feature_pyramid_takes_its_features(name: str) -> None:
    body = timm.create_model(name, features_only=True, border="mask", **NARROW)
    maps = body(torch.randn(1, 3, 128, 192))
    pyramid = FeaturePyramidNetwork(body.feature_info.channels(), 16)
    out = pyramid({str(i): feature for i, feature in enumerate(maps)})
    expected = [(128 // stride, 192 // stride) for stride in body.feature_info.reduction()]
    assert [tuple(value.shape[2:]) for value in out.values()] == expected
    sum(value.mean() for value in out.values()).backward()
    assert all(parameter.grad is not None for parameter in body.parameters())


SCRIPT = """
    import sys
    import timm, torch
    import torch.distributed as dist
    from torch import nn
    import focal_lab

    def main(rank, out):
        dist.init_process_group("gloo", f"file://{out}/meeting", rank=rank, world_size=2)
        states = []
        for options in OPTIONS:
            torch.manual_seed(0)
            name = "focal_micro_patch2_window7_28"
            model = timm.create_model(name, num_classes=5, use_shift=True, **options)
            # without find_unused_parameters an unused parameter would make the next step fail
            wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
            optimizer = torch.optim.SGD(wrapped.parameters(), 0.05)
            images = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1))
            for _ in range(3):
                optimizer.zero_grad()
                wrapped(images[2 * rank : 2 * rank + 2]).square().mean().backward()
                optimizer.step()
            states.append(model.state_dict())
        torch.save(states, f"{out}/{rank}.pt")
        dist.destroy_process_group()

    main(int(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_train_like_one_and_leave_no_parameter_unused(tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [{}, {"coarse_bias": "window", "level_overlap": "exclude"}]
    script = tmp_path / "train.py"
    script.write_text(f"OPTIONS = {cases!r}\n" + textwrap.dedent(SCRIPT))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for options, first, second in zip(cases, *states, strict=True):
        for name, value in alone(options).state_dict().items():
            assert first[name].equal(second[name]), name
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)


def alone(options: dict[str, Any]) -> nn.Module:
    """The same three steps in this process, on the whole batch."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        "focal_micro_patch2_window7_28", num_classes=5, use_shift=True, **options
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    images = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return model
