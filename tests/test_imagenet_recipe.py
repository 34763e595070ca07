"""The ImageNet recipe holds against the paper's table and the released code's, as the report carries them."""

from typing import Any

import pytest
from support import ROOT
from test_experiments import load, merge

from focal_lab.report.published.layouts import paper_tables
from focal_lab.training.lightning_cli import check_config

FOLDER = ROOT / "experiments/imagenet"
RECIPES = paper_tables()["training_recipes"]["imagenet1k"]
PAPER, CODE = RECIPES["paper"], RECIPES["released_code"]
SIZES = {"T": [], "S": ["small"], "B": ["base"]}


def recipe(*overlays: str) -> dict[str, Any]:
    """The configuration with all defaults, as `--print_config` shows it."""
    config = load(FOLDER / "classification.yaml")
    for name in overlays:
        config = merge(config, load(FOLDER / f"{name}.yaml"))
    return check_config(config)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_trained_as_the_paper_says(size: str) -> None:
    config = recipe(*SIZES[size])
    model, data, trainer = (config["model"]["init_args"], config["data"]["init_args"], config["trainer"])
    assert trainer["max_epochs"] == PAPER["epochs"]
    assert trainer["gradient_clip_val"] == PAPER["grad_clip"]
    assert model["total_batch_size"] == PAPER["batch"]
    assert model["total_batch_size"] % (trainer["devices"] * data["batch_size"]) == 0
    assert model["lr"] == PAPER["lr"]
    assert model["weight_decay"] == PAPER["weight_decay"]
    assert f"{model['warmup_epochs']:g} epochs linear from 1e-5" == PAPER["warmup"]
    assert model["warmup_lr"] == 1e-5
    assert model["backbone_options"]["drop_path_rate"] == PAPER["drop_path"][size]
    assert data["image_size"] == PAPER["res"]
    assert PAPER["augmentation"] == "DeiT set minus random erasing, repeated augmentation, EMA"
    assert (data["random_erasing"], data["repeated_augmentation"], model["ema_decay"]) == (0.0, 1, None)


RELEASED_SIZES = {"T": ["released"], "S": ["released", "released_small"], "B": ["released", "released_base"]}


@pytest.mark.parametrize("size", RELEASED_SIZES)
def test_every_size_can_be_trained_as_the_released_code_does(size: str) -> None:
    config = recipe(*RELEASED_SIZES[size])
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["lr"] == pytest.approx(5e-4 * 1024 / 512)
    assert model["warmup_lr"] == pytest.approx(5e-7 * 1024 / 512)
    assert model["min_lr"] == pytest.approx(5e-6 * 1024 / 512)
    for name in ("weight_decay", "label_smoothing", "mixup", "cutmix"):
        assert model[name] == CODE[name], name
    assert list(model["betas"]) == CODE["betas"]
    assert config["trainer"]["gradient_clip_val"] == CODE["clip"]
    assert data["auto_augment"] == CODE["rand_aug"]
    assert data["color_jitter"] == CODE["color_jitter"]
    assert data["random_erasing"] == CODE["random_erasing"]
    assert data["interpolation"] == "bicubic"
    assert data["image_size"] / data["crop_pct"] == 256
    assert model["backbone_options"]["drop_path_rate"] == CODE["drop_path"][size]


def test_paper_and_code_differ_in_what_the_overlays_say_and_nothing_else() -> None:
    for overlay, keys in {
        "released": {("model", "warmup_lr"), ("data", "random_erasing")},
        "deit": {("model", "ema_decay"), ("data", "random_erasing"), ("data", "repeated_augmentation")},
    }.items():
        plain, other = recipe(), recipe(overlay)
        changed = {
            (part, key)
            for part in ("model", "data")
            for key, value in other[part]["init_args"].items()
            if plain[part]["init_args"][key] != value
        }
        assert changed == keys
        assert plain["trainer"] == other["trainer"]
