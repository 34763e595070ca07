from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny_task import OPTIONS

from focal_lab.backbones.presets import PRESETS
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, resolve_name

MICRO = "focal_micro_patch2_window7_28"


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("focal_micro", OPTIONS, 28),
        ("focal_swin_micro", OPTIONS | {"window_size": 14}, 28),
        ("resnet10t", {"drop_rate": 0.1}, 32),
        ("test_resnet.r160_in1k", {}, 32),
        ("test_vit", {"img_size": 32}, 32),
    ],
)
def test_any_model_of_timm_comes_with_its_options_and_classes(
    name: str, options: dict[str, Any], size: int
) -> None:
    model = create_backbone(name, options, num_classes=7).eval()
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_options_reach_the_model() -> None:
    wide = create_backbone("focal_micro", {"embed_dim": 24, "depths": [1, 1, 1, 1]})
    assert wide.num_features == 24 * 8
    assert create_backbone("resnet10t", {"drop_rate": 0.25}).drop_rate == 0.25


def test_options_are_not_changed_by_their_use() -> None:
    options = dict(OPTIONS)
    create_backbone("focal_micro", options, num_classes=3)
    assert options == OPTIONS


@pytest.mark.parametrize("full", list(PRESETS))
def test_every_preset_has_a_short_name(full: str) -> None:
    assert resolve_name(full) == full
    assert resolve_name(full.partition("_patch")[0]) == full


def test_other_names_are_left_as_they_are() -> None:
    assert resolve_name("test_resnet.r160_in1k") == "test_resnet.r160_in1k"


@pytest.mark.parametrize("name", ["focal_tinny", "focal", "", "resnet"])
def test_an_unknown_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.backbone: '{name}' is not a backbone .*{MICRO}.*timm\."):
        create_backbone(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focal_micro", {"num_heads": 3}, "num_heads: 3 heads do not divide the width 16 of stage 1"),
        ("focal_micro", {"window_sise": 3}, f"{MICRO}: window_sise is not an option of a focal backbone"),
        ("focal_micro", {"drop_rate": "high"}, f"{MICRO}: "),
        ("resnet10t", {"foo": 1}, "resnet10t: ResNet.__init__() got an unexpected keyword argument 'foo'"),
        ("resnet10t", {"output_stride": 5}, "resnet10t: AssertionError"),
        ("resnet10t.nope", {}, "resnet10t.nope: Invalid pretrained tag (nope) for resnet10t."),
    ],
)
def test_an_option_that_breaks_a_rule_is_told_with_the_model(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        create_backbone(name, options)
    assert str(caught.value).startswith(f"model.backbone_options: {message}")
    assert "\n" not in str(caught.value)


def test_a_backbone_starts_from_a_file_of_weights() -> None:
    trained = timm.create_model(MICRO, num_classes=5, **OPTIONS)
    torch.save(trained.state_dict(), "weights.pth")
    started = create_backbone("focal_micro", OPTIONS, checkpoint="weights.pth", num_classes=5)
    for name, value in trained.state_dict().items():
        assert torch.equal(started.state_dict()[name], value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "weights.pth does not exist"),
        (b"no weights", f"weights.pth: does not fit {MICRO}: "),
        ("other", f"weights.pth: does not fit {MICRO}: Error(s) in loading state_dict"),
    ],
)
def test_weights_that_cannot_be_loaded_are_told_with_their_file(
    content: bytes | str | None, message: str
) -> None:
    if isinstance(content, bytes):
        Path("weights.pth").write_bytes(content)
    elif content:
        torch.save(create_backbone("focal_micro", {"embed_dim": 16}).state_dict(), "weights.pth")
    with pytest.raises(UserError) as caught:
        create_backbone("focal_micro", OPTIONS, checkpoint="weights.pth")
    assert str(caught.value).startswith(f"model.backbone_checkpoint: {message}")
    assert "\n" not in str(caught.value)
