import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning import Trainer
from safetensors.torch import save_file
from support.tiny_task import OPTIONS

from focal_lab.backbones.presets import PRESETS
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, resolve_name
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.segmentation.task import Segmentation

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
def test_an_option_that_breaks_a_rule_is_reported_with_the_model(
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


def warned(**arguments: Any) -> tuple[torch.nn.Module, list[str]]:
    """A backbone, and what its making warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = create_backbone(**arguments)
    # not those that a garbage collection in between makes of what other tests left open
    return model, [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def test_a_head_of_other_classes_begins_from_scratch_and_is_reported() -> None:
    trained = timm.create_model(MICRO, num_classes=5, **OPTIONS)
    torch.save(trained.state_dict(), "weights.pth")
    started, reported = warned(name="focal_micro", options=OPTIONS, checkpoint="weights.pth", num_classes=3)
    assert reported == ["weights.pth (focal-lab): 2 parameters left as initialised (its head has 5 classes)"]
    assert started.norm.weight.equal(trained.norm.weight)
    assert started(torch.zeros(1, 3, 28, 28)).shape == (1, 3)


def test_weights_of_other_windows_are_resized_and_that_is_reported() -> None:
    torch.save(timm.create_model(MICRO, num_classes=5, **OPTIONS).state_dict(), "weights.pth")
    _, reported = warned(
        name="focal_micro",
        options=OPTIONS | {"window_size": 5},
        checkpoint="weights.pth",
        num_classes=5,
    )
    assert len(reported) == 1
    assert reported[0].startswith("weights.pth (focal-lab): ")
    assert "interpolated from window 7 to 5" in reported[0]


@pytest.mark.parametrize("kind", ["state dict", "Lightning", "safetensors"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (0, 2)])
def test_a_feature_extractor_starts_from_a_classifiers_weights(
    kind: str, out_indices: tuple[int, ...]
) -> None:
    task = Classification("focal_micro", OPTIONS, num_classes=5)
    state = task.model.state_dict()
    if kind == "Lightning":
        trainer = Trainer(logger=False, barebones=True)
        trainer.strategy.connect(task)
        torch.save(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), "weights.ckpt")
    elif kind == "safetensors":
        save_file(state, "weights.safetensors")
    else:
        torch.save(state, "weights.pth")
    (file,) = [path.name for path in Path().iterdir() if path.name.startswith("weights")]
    features, reported = warned(
        name="focal_micro", options=OPTIONS, checkpoint=file, features_only=True, out_indices=out_indices
    )
    assert len(reported) == 1
    assert all(clause.endswith(" dropped (the model ends before it)") for clause in reported[0].split("; "))
    for key, value in features.model.state_dict().items():
        assert value.equal(state[key]), key
    picture = torch.randn(1, 3, 28, 28)
    expected = task.model.eval().forward_intermediates(picture, out_indices, intermediates_only=True)
    for ours, theirs in zip(features.eval()(picture), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


SWIN = {"img_size": 64, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 2}
OF_TIMM: dict[str, dict[str, Any]] = {
    "test_resnet": {},
    "test_vit": {},
    "test_convnext": {},
    "test_efficientnet": {},  # ends before what follows on its maps
    "test_byobnet": {},
    "test_nfnet": {},
    "test_mambaout": {},
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "pvt_v2_b0": {},
    "regnetx_002": {},
    "hrnet_w18_small": {},
    "mobilenetv3_small_050": {},
    "sam2_hiera_tiny": {
        "stages": (1, 1, 1, 1),
        "embed_dim": 8,
        "num_heads": 1,
    },  # its head has a norm of maps
}


def random_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Values of which no two are alike by chance."""
    state = model.state_dict()
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value for key, value in state.items()
    }


def in_one_word(key: str, parts: set[str]) -> str:
    """A name whatever wraps the network and flattens its lists, as timm does for maps."""
    top, _, rest = key.partition(".")
    return (rest if top in ("model", "body") and top not in parts else key).replace(".", "_")


@pytest.mark.parametrize("prefix", ["", "model.", "model.module.", "model._orig_mod.", "module._orig_mod."])
def test_weights_are_found_behind_what_ddp_and_compilation_put_before_them(prefix: str) -> None:
    state = random_weights(timm.create_model("test_resnet", num_classes=5))
    torch.save(
        {
            "state_dict": {prefix + key: value for key, value in state.items()}
            | {"ema.module.x": torch.ones(1)}
        },
        "weights.ckpt",
    )
    started = create_backbone("test_resnet", checkpoint="weights.ckpt", num_classes=5).state_dict()
    assert all(started[key].equal(value) for key, value in state.items())


@pytest.mark.parametrize("name", OF_TIMM)
def test_every_weight_of_timms_networks_is_loaded_for_other_classes_and_for_maps(name: str) -> None:
    options = OF_TIMM[name]
    trained = timm.create_model(name, num_classes=5, **options)
    state = random_weights(trained)
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, "weights.ckpt")
    head = trained.pretrained_cfg["classifier"]
    started, reported = warned(name=name, options=options, checkpoint="weights.ckpt", num_classes=3)
    assert reported == [f"weights.ckpt: {head} left as initialised (it has 5 classes there)"]
    for key, value in started.state_dict().items():
        assert key.startswith(f"{head}.") or value.equal(state[key]), key
    maps, reported = warned(name=name, options=options, checkpoint="weights.ckpt", features_only=True)
    assert all("dropped (the model ends before it)" in line for line in reported)
    parts = {key.partition(".")[0] for key in state}
    found = {in_one_word(key, set()): value for key, value in state.items()}
    loaded = maps.state_dict()
    assert loaded
    for key, value in loaded.items():
        assert value.equal(found[in_one_word(key, parts)]), key


def test_the_tasks_with_heads_start_from_a_classification_run_of_a_timm_network() -> None:
    torch.save({"state_dict": Classification("test_resnet", num_classes=5).state_dict()}, "weights.ckpt")
    state = torch.load("weights.ckpt")["state_dict"]
    segmenter = Segmentation("test_resnet", backbone_checkpoint="weights.ckpt", num_classes=3)
    detector = Detection("retinanet", "test_resnet", backbone_checkpoint="weights.ckpt", num_classes=3)
    for features in (segmenter.model.features, detector.model.backbone.body):
        for key, value in features.model.state_dict().items():
            assert value.equal(state[f"model.{key}"]), key


def test_a_network_of_other_channels_gets_the_first_convolution_as_timm_converts_it() -> None:
    state = random_weights(timm.create_model("test_resnet"))
    torch.save(state, "weights.pth")
    started, reported = warned(name="test_resnet", options={"in_chans": 1}, checkpoint="weights.pth")
    assert reported == ["weights.pth: conv1.0 converted from 3 to 1 channels"]
    torch.testing.assert_close(
        started.state_dict()["conv1.0.weight"], state["conv1.0.weight"].sum(1, keepdim=True)
    )


@pytest.mark.parametrize("features", [{}, {"features_only": True}])
def test_a_weight_that_is_missing_or_too_many_is_refused_by_name(features: dict[str, bool]) -> None:
    state = random_weights(timm.create_model("test_resnet"))
    state["layer4.0.more.weight"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, "weights.pth")
    with pytest.raises(UserError) as caught:
        create_backbone("test_resnet", checkpoint="weights.pth", **features)
    assert str(caught.value) == (
        "model.backbone_checkpoint: weights.pth: does not fit test_resnet: lacks layer1.0.conv1.weight; "
        "has also layer4.0.more.weight"
    )


class Command:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("name", ["focal_micro", "test_resnet"])
def test_nothing_in_a_file_of_weights_is_executed(name: str) -> None:
    torch.save({"model": timm.create_model("test_resnet").state_dict(), "args": Command()}, "weights.pth")
    with pytest.raises(
        UserError, match=r"^model\.backbone_checkpoint: weights\.pth: holds objects of posix\."
    ):
        create_backbone(name, checkpoint="weights.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "weights.pth: does not exist"),
        (b"no weights", "weights.pth: cannot be read as weights; it is damaged, truncated or something else"),
        (
            "other",
            f"weights.pth: does not fit {MICRO}: patch_embed.proj.weight: shape (16, 3, 2, 2) is not the "
            "model's (8, 3, 2, 2); ",
        ),
    ],
)
def test_weights_that_cannot_be_loaded_are_reported_with_their_file(
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


def test_weights_that_do_not_fit_a_model_of_timm_are_reported_with_their_file() -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), "weights.pth")
    with pytest.raises(
        UserError, match=r"^model\.backbone_checkpoint: weights\.pth: does not fit test_resnet: "
    ):
        create_backbone("test_resnet", checkpoint="weights.pth")
