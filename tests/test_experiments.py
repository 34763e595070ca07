"""Every experiment that is shipped can be trained, and says at its top what it is."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from focal_lab.backbones.presets import find_preset
from focal_lab.errors import UserError
from focal_lab.sweep.spec.suite import SUITE_FILE, find_suite
from focal_lab.training.cost import count_config
from focal_lab.training.lightning_cli import check_config

FOUND = sorted(path.relative_to(ROOT) for path in ROOT.glob("experiments/*/*.yaml"))
ALL = [path for path in FOUND if path.name != SUITE_FILE]
# what is laid over an experiment says no class of model
HAS_MODEL = re.compile(r"^model:\n  class_path", re.M)
EXPERIMENTS = [path for path in ALL if HAS_MODEL.search(path.read_text(encoding="utf-8"))]
OVERLAYS = [path for path in ALL if path not in EXPERIMENTS]
# overlays alone, as in debug/, are no suite
SUITES = sorted({path.parent.name for path in FOUND if path in EXPERIMENTS or path.name == SUITE_FILE})
by_path = pytest.mark.parametrize("path", EXPERIMENTS, ids=str)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are looked for in the working folder."""
    monkeypatch.chdir(ROOT)


def header(path: Path) -> dict[str, str]:
    """The comment on top of a file: `# Key: text` as key -> text, its first line under "what"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("# "))]
    keyed = [re.match(r"# (\w+): +(.*)", line) for line in comment]
    return {"what": comment[0][2:] if comment else ""} | {found[1]: found[2] for found in keyed if found}


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def test_every_suite_has_a_classification() -> None:
    for suite in ("digits", "imagenet", "retrieval"):
        assert Path(f"experiments/{suite}/classification.yaml") in EXPERIMENTS


@by_path
def test_an_experiment_opens_with_what_it_trains_the_command_and_its_cost(path: Path) -> None:
    reported = header(path)
    assert len(reported["what"]) > 20
    assert reported["Run"].startswith(f"focal-lab fit --config {path}")
    assert re.search(r"\d+ epochs", reported["Cost"])


@by_path
def test_the_command_on_top_of_an_experiment_is_one_that_parses(path: Path) -> None:
    _, fit, config_option, file, *overrides = shlex.split(header(path)["Run"])
    assert (fit, config_option, file) == ("fit", "--config", str(path))
    config = load(path)
    for override in overrides:
        key, _, value = override.removeprefix("--data.").partition("=")
        assert override.startswith("--data.")
        config["data"]["init_args"][key] = value
    assert check_config(config)["trainer"]["max_epochs"] == config["trainer"]["max_epochs"]


@by_path
def test_the_cost_on_top_of_an_experiment_is_that_of_its_settings(path: Path) -> None:
    cost, config = header(path)["Cost"], load(path)
    epochs = config["trainer"]["max_epochs"]
    assert cost.startswith(f"{epochs} epochs")
    steps = re.search(r"= (\d+) steps of (\d+) images", cost)
    if steps:
        data = config["data"]["init_args"]
        assert int(steps[2]) == data["batch_size"]
        assert int(steps[1]) == epochs * (data["num_train_images"] // data["batch_size"])


@by_path
def test_an_experiments_network_can_be_built_and_takes_its_images(path: Path) -> None:
    counted = count_config(load(path))
    assert counted.params > 10_000
    assert counted.gmacs > 0


@by_path
def test_a_suite_serves_an_experiment_as_it_is_in_the_file(path: Path) -> None:
    assert find_suite(path.parent.name).experiment(path.stem) == load(path)


@pytest.mark.parametrize("path", OVERLAYS, ids=str)
def test_an_overlay_opens_with_a_command_that_parses(path: Path) -> None:
    reported = header(path)
    assert len(reported["what"]) > 20
    _, fit, *arguments = shlex.split(reported["Run"])
    files = [Path(arguments[i + 1]) for i, word in enumerate(arguments) if word == "--config"]
    assert fit == "fit"
    assert files[-1] == path
    merged = load(files[0])
    for file in files[1:]:
        merged = merge(merged, load(file))
    parsed = check_config(merged)
    assert reported["Cost"].startswith(f"{parsed['trainer']['max_epochs']} epochs")


def test_a_folder_of_overlays_is_no_suite() -> None:
    with pytest.raises(UserError, match=r"'debug' has no experiments") as caught:
        find_suite("debug")
    assert "digits" in str(caught.value)
    with pytest.raises(UserError) as caught:
        find_suite("nope")
    assert "debug" not in str(caught.value)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: merge(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)
    }
    return base | over | both


def test_coco_follows_the_papers_recipe() -> None:
    for method, gpus in (("mask_rcnn", 8), ("retinanet", 8)):
        config = load(Path(f"experiments/coco/{method}.yaml"))
        model = config["model"]["init_args"]
        assert (model["method"], model["num_classes"], model["min_size"], model["max_size"]) == (
            method,
            80,
            [800],
            1333,
        )
        assert (model["lr"], model["weight_decay"]) == (1e-4, 0.05)
        assert model["backbone_options"]["focal_windows"] == [15, 13, 9, 7]
        assert config["trainer"]["max_epochs"] == 12
        assert config["trainer"]["devices"] == gpus


def test_the_papers_tables_need_one_suite() -> None:
    suite = find_suite("imagenet")
    assert suite.experiment("detection") == load(Path("experiments/coco/mask_rcnn.yaml"))


def test_imagenet_follows_the_papers_recipe() -> None:
    config = load(Path("experiments/imagenet/classification.yaml"))
    model, trainer = config["model"]["init_args"], config["trainer"]
    assert (trainer["max_epochs"], trainer["gradient_clip_val"], model["warmup_epochs"]) == (300, 5.0, 20)
    assert trainer["devices"] * config["data"]["init_args"]["batch_size"] == 1024
    assert (model["lr"], model["weight_decay"], model["min_lr"]) == (1e-3, 0.05, 1e-5)
    assert (model["mixup"], model["cutmix"], model["label_smoothing"]) == (0.8, 1.0, 0.1)


@pytest.mark.parametrize("suite", SUITES)
def test_what_a_suite_lets_backbones_stand_for_are_presets(suite: str) -> None:
    for name, stands_for in find_suite(suite).backbones.items():
        assert find_preset(name), name
        assert find_preset(stands_for), stands_for


def test_the_digits_suite_stands_in_for_both_networks_of_the_paper() -> None:
    assert set(find_suite("digits").backbones) == {"focal_tiny", "focal_swin_tiny"}
