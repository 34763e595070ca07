"""Every registered backbone supports timm's interface; large ones are built narrow, or on the meta device."""

import json
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.models._manipulate import group_with_matcher
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor

import focal_lab  # noqa: F401
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import identity
from focal_lab.backbones.presets import PRESETS, preset_options

EVERY = pytest.mark.parametrize("name", PRESETS)
MICRO = "focal_micro_patch2_window7_28"
NARROW = {"embed_dim": 24, "num_heads": (3, 3, 6, 6), "depths": (2, 1, 2, 1), "img_size": 112}


def is_small(name: str) -> bool:
    return any(word in name for word in ("micro", "mini", "shallow"))


def small(name: str, **options: Any) -> FocalTransformer:
    """The preset itself if it is small, else narrow, shallow and at half the size, its switches untouched."""
    torch.manual_seed(0)
    narrow = {} if is_small(name) else NARROW
    model: FocalTransformer = timm.create_model(name, **{"num_classes": 5} | narrow | options)
    return model


def images(model: FocalTransformer, batch: int = 2, size: int | None = None) -> Tensor:
    size = size or model.options.img_size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model.options.in_chans, size, size, generator=generator)


def start_python(code: str) -> subprocess.Popen[str]:
    """A fresh interpreter."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


def printed_by(process: subprocess.Popen[str]) -> str:
    """The output of a Python process that must succeed."""
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed


def test_every_preset_is_registered_whatever_is_imported_first() -> None:
    show = "\nprint(*timm.list_models('focal_*'), type(timm.__spec__.loader).__name__)"
    processes = [
        start_python(imports + show)
        for imports in (
            "import timm, focal_lab",
            # checking whether timm is installed, as Lightning does, imports nothing
            "import focal_lab, importlib.util; importlib.util.find_spec('timm'); import timm",
            "from focal_lab.backbones.model import FocalTransformer; import timm",
        )
    ]
    for process in processes:
        *names, loader = printed_by(process).split()
        assert set(PRESETS) <= set(names)
        assert loader == "SourceFileLoader", "timm keeps its own loader"


def test_focal_lab_its_options_and_its_presets_import_neither_torch_nor_timm() -> None:
    process = start_python(
        "import sys, focal_lab, focal_lab.backbones.options\n"
        "from focal_lab.backbones.presets import preset_options\n"
        "preset_options('focal_tiny')\n"
        "print([name for name in ('torch', 'timm', 'numpy', 'lightning') if name in sys.modules])"
    )
    assert printed_by(process).strip() == "[]"


@EVERY
def test_a_registered_name_has_timms_description_of_its_input(name: str) -> None:
    cfg = timm.models.get_pretrained_cfg(name)
    size = int(name.rpartition("_")[2])
    assert cfg.input_size == (3, size, size)
    assert not cfg.has_weights


@EVERY
def test_the_full_model_computes_the_right_shapes(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    size = model.options.img_size
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 1000)
    assert model.default_cfg["input_size"] == (3, size, size)
    assert identity(model.options)["img_size"] == [size, size]


@EVERY
def test_outputs_are_finite_and_every_parameter_has_a_gradient(name: str) -> None:
    model = small(name)
    logits = model(images(model))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    # a query with a single key attends to it whatever the biases are
    alone = [f"layers.{i}." for i, stage in enumerate(model.stages_config) if stage.keys == 1]
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        without_effect = "bias_table" in parameter_name and parameter_name.startswith(tuple(alone))
        assert (parameter.grad.abs().max() > 0) != without_effect, parameter_name


@EVERY
def test_features_have_the_strides_and_channels_that_are_claimed(name: str) -> None:
    options = preset_options(name)
    stages, patch = len(options.stages), options.patch_size
    size = patch * 2**stages * (1 if is_small(name) else 2)
    for out_indices in (tuple(range(stages)), (stages // 2 - 1, stages - 1)):
        features = small(name, features_only=True, out_indices=out_indices, img_size=size)
        maps = features(torch.randn(1, 3, size, size))
        assert len(maps) == len(out_indices)
        info = zip(maps, features.feature_info.reduction(), features.feature_info.channels(), strict=True)
        for feature, reduction, channels in info:
            assert feature.shape == (1, channels, size // reduction, size // reduction)
    assert features.feature_info.reduction() == [patch * 2 ** (stages // 2 - 1), patch * 2 ** (stages - 1)]


@EVERY
def test_features_are_forward_intermediates(name: str) -> None:
    model = small(name).eval()
    features = small(name, features_only=True).eval()
    features.load_state_dict(
        {
            key: value
            for key, value in model.state_dict().items()
            if key.split(".")[0] not in ("norm", "head")
        },
        strict=False,
    )
    x = images(model)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x, norm=True)
        assert final.equal(model.forward_features(x))
        assert maps[-1].equal(final.permute(0, 3, 1, 2))
        plain = model.forward_intermediates(x, intermediates_only=True)
        last_two = model.forward_intermediates(x, 2, intermediates_only=True, output_fmt="NHWC")
        first = model.forward_intermediates(x, [0], stop_early=True)
        through_getter = features(x)
    for one, other in zip(plain, through_getter, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert [feature.shape[1] for feature in plain] == [entry["num_chs"] for entry in model.feature_info]
    for one, other in zip(plain[-2:], last_two, strict=True):
        assert one.permute(0, 2, 3, 1).equal(other)
    assert first[1][0].equal(plain[0])
    assert first[0].permute(0, 3, 1, 2).equal(plain[0]), "nothing after the first stage was computed"


def test_an_unknown_output_format_is_refused() -> None:
    model = small(MICRO)
    with pytest.raises(ValueError, match=r"^output_fmt: 'NLC' is unknown \(use NCHW or NHWC\)"):
        model.forward_intermediates(images(model), output_fmt="NLC")


def test_pruning_drops_the_stages_beyond_the_last_chosen_one() -> None:
    model = small(MICRO).eval()
    x = images(model)
    with torch.no_grad():
        expected = model.forward_intermediates(x, [1], intermediates_only=True)[0]
        assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
        assert len(model.layers) == 2
        assert model(x).permute(0, 3, 1, 2).equal(expected)


@EVERY
def test_a_model_without_classes_returns_its_pooled_features(name: str) -> None:
    model = small(name, num_classes=0).eval()
    x = images(model)
    with torch.no_grad():
        pooled = model(x)
        torch.testing.assert_close(pooled, model.forward_features(x).mean((1, 2)))
    assert pooled.shape == (2, model.num_features)


@EVERY
def test_a_classifier_can_be_replaced_and_removed(name: str) -> None:
    model = small(name)
    x = images(model)
    assert model.get_classifier().out_features == 5
    model.reset_classifier(7)
    assert (model.num_classes, model(x).shape) == (7, (2, 7))
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0, "max")
    assert model.global_pool == "max"
    torch.testing.assert_close(model(x), model.forward_features(x).amax((1, 2)))
    torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), model(x))


@pytest.mark.parametrize("global_pool", ["avg", "max", "catavgmax", ""])
def test_timms_global_poolings_work(global_pool: str) -> None:
    model = small(MICRO, num_classes=0, global_pool=global_pool).eval()
    x = images(model)
    with torch.no_grad():
        map_BHWC = model.forward_features(x)
        average, largest = map_BHWC.mean((1, 2)), map_BHWC.amax((1, 2))
        expected = {
            "avg": average,
            "max": largest,
            "catavgmax": torch.cat((average, largest), 1),
            "": map_BHWC,
        }
        torch.testing.assert_close(model(x), expected[global_pool])


@EVERY
@pytest.mark.parametrize("channels", [1, 4])
def test_images_may_have_other_channels_than_three(name: str, channels: int) -> None:
    model = small(name, in_chans=channels)
    assert model.patch_embed.proj.in_channels == channels
    assert model(images(model)).isfinite().all()


@EVERY
def test_layer_decay_groups_hold_every_parameter_once_and_deepen_with_it(name: str) -> None:
    model = small(name)
    groups = param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.5)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    layers = group_with_matcher(model.named_parameters(), model.group_matcher(), reverse=True)
    assert {layers[key] for key in layers if key.startswith("patch_embed.")} == {0}
    blocks = [
        {layers[key] for key in layers if key.startswith(f"layers.{i}.blocks.{j}.")}
        for i, stage in enumerate(model.layers)
        for j in range(len(stage.blocks))
    ]
    assert all(len(block) == 1 for block in blocks)
    depths = [block.pop() for block in blocks]
    assert depths == sorted(set(depths))
    assert depths[0] > 0
    assert layers["head.fc.weight"] > layers["norm.weight"] == depths[-1]  # timm counts the norm to the last
    # a stage's downsampling goes with a layer of its own, between the stages
    for i in range(1, len(model.layers)):
        down = {layers[key] for key in layers if key.startswith(f"layers.{i}.downsample.")}
        assert len(down) == 1


@EVERY
def test_position_biases_norms_and_biases_have_no_weight_decay(name: str) -> None:
    model = small(name)
    parameters = dict(model.named_parameters())
    positions = {
        id(bias) for stage in model.layers for b in stage.blocks for bias in b.attn.position_biases()
    }
    assert {id(parameters[key]) for key in model.no_weight_decay()} == positions
    free, decayed = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    assert (free["weight_decay"], decayed["weight_decay"]) == (0.0, 0.1)
    names = {id(parameter): key for key, parameter in parameters.items()}
    kinds = {names[id(parameter)].split(".")[-1] for parameter in decayed["params"]}
    assert kinds == {"weight"}
    assert all(parameter.ndim > 1 for parameter in decayed["params"])


@EVERY
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = small(name, drop_path_rate=0.2).train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(3)
        model(images(model)).square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    for kept, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_gradient_checkpointing_keeps_no_activations_of_the_blocks() -> None:
    def kept(checkpointing: bool) -> int:
        model = small(MICRO).train()
        model.set_grad_checkpointing(checkpointing)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(images(model, batch=8))
        return sum(sizes)

    assert kept(True) < kept(False) / 3


@EVERY
@pytest.mark.parametrize("size", [(56, 84), (61, 47), (20, 20)])
def test_other_image_sizes_than_the_constructors_run(name: str, size: tuple[int, int]) -> None:
    model = small(name).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("rate", ["drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate"])
def test_each_dropout_acts_in_training_only(rate: str) -> None:
    model = small(MICRO, **{rate: 0.3})
    x = images(model, batch=4)
    with torch.no_grad():
        model.eval()
        assert model(x).equal(model(x))
        model.train()
        assert not model(x).equal(model(x))
        still = small(MICRO).train()
        assert still(x).equal(still(x))


def test_drop_path_grows_linearly_from_nothing_to_its_rate() -> None:
    model = small(MICRO, drop_path_rate=0.7)
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) for stage in model.layers for b in stage.blocks]
    assert rates == pytest.approx([0.1 * i for i in range(len(rates))])


@EVERY
def test_the_effective_configuration_is_json_and_lists_what_is_computed(name: str) -> None:
    model = small(name)
    config = model.effective_config()
    assert json.loads(json.dumps(config)) == config
    for described, stage in zip(config, model.layers, strict=True):
        attention = stage.blocks[0].attn
        assert described["keys_per_window"] == attention.bias().shape[2]
        assert described["window"][0] * described["window"][1] == attention.bias().shape[1]
        assert (described["depth"], described["num_heads"]) == (len(stage.blocks), attention.num_heads)


@EVERY
def test_an_unknown_option_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(TypeError, match=r"^focal_level is not an option of a focal backbone"):
        timm.create_model(name, focal_level=3)


def test_a_state_dict_goes_through_a_file(tmp_path: Any) -> None:
    model = small(MICRO).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    loaded = timm.create_model(MICRO, num_classes=5, checkpoint_path=str(tmp_path / "weights.pth")).eval()
    with torch.no_grad():
        assert loaded(images(model)).equal(model(images(model)))
