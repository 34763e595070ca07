"""Maps of any timm backbone become a pyramid."""

from typing import Any

import pytest
import torch
from torch import nn

from focal_lab.errors import UserError
from focal_lab.tasks.detection.parts import Pyramid
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.features import Features

ANY = {
    "focal_micro": {"img_size": 64},
    "resnet18": {},
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "depths": [1, 1, 1, 1], "embed_dim": 24},
}


def features(backbone: str, stages: int = 4, norm: bool | None = None, **options: Any) -> Features:
    torch.manual_seed(0)
    return Features(backbone, ANY[backbone] | options, None, stages, norm)


@pytest.mark.parametrize("backbone", ANY)
def test_maps_have_the_strides_and_channels_that_they_claim(backbone: str) -> None:
    body = features(backbone)
    body.extent.update([(64, 64)], (64, 64))
    with torch.no_grad():
        maps = body.eval()(torch.randn(1, 3, 64, 64))
        pyramid = Pyramid(body, 8, "pool").eval()(torch.randn(1, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [
        (1, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(body.channels, body.strides, strict=True)
    ]
    assert len(pyramid) == 5


@pytest.mark.parametrize("backbone", ANY)
def test_a_detector_learns_on_any_backbone(backbone: str) -> None:
    torch.manual_seed(0)
    task = Detection("retinanet", backbone, ANY[backbone], num_classes=3, pyramid_channels=8)
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = task.model([torch.randn(3, 64, 64), torch.randn(3, 50, 60)], [target, target])
    sum(losses.values()).backward()
    body = task.model.get_submodule("backbone.body")
    assert all(torch.isfinite(p.grad).all() for p in body.parameters() if p.grad is not None)
    assert any(p.grad is not None and p.grad.any() for p in body.parameters())


def test_transformers_maps_are_normalised_and_convolutional_ones_as_they_are() -> None:
    assert all(isinstance(norm, nn.LayerNorm) for norm in features("focal_micro").norms)
    assert all(isinstance(norm, nn.LayerNorm) for norm in features("swin_tiny_patch4_window7_224").norms)
    assert all(isinstance(norm, nn.Identity) for norm in features("resnet18").norms)
    assert all(isinstance(norm, nn.Identity) for norm in features("focal_micro", norm=False).norms)
    body = features("resnet18", norm=True)
    body.extent.update([(64, 64)], (64, 64))
    coarsest = body(torch.randn(1, 3, 64, 64))[-1]
    torch.testing.assert_close(coarsest.mean(1), torch.zeros(1, 2, 2), atol=1e-5, rtol=0)


def test_our_backbones_border_is_masked_unless_said_otherwise() -> None:
    assert features("focal_micro").model.options.border == "mask"
    assert features("focal_micro", border="wrap").model.options.border == "wrap"


def test_p6_comes_from_c5_even_where_it_is_as_wide_as_p5() -> None:
    body = features("focal_micro", stages=3)
    body.extent.update([(64, 64)], (64, 64))
    pyramid = Pyramid(body, body.channels[-1], "convolutions")
    with torch.no_grad():
        before = pyramid(torch.ones(1, 3, 64, 64))
        for block in pyramid.fpn.layer_blocks:
            block[0].weight.mul_(2)  # P3 to P5, but nothing that comes from C5
        after = pyramid(torch.ones(1, 3, 64, 64))
    assert not torch.equal(before["2"], after["2"])
    assert torch.equal(before["p6"], after["p6"])
    assert pyramid.strides == [4, 8, 16, 32, 64]


def test_what_is_no_pyramid_is_refused() -> None:
    with pytest.raises(UserError, match="not a pyramid"):
        Features("vit_tiny_patch16_224", {"img_size": 64}, None, 3)
