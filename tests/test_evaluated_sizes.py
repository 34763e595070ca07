"""For every experiment that is shipped, what is counted is of the size that evaluation feeds.

Models are on the meta device, and end where the first image comes in: nothing is computed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import ROOT
from support.sized_project import coco_options, folder_options, most, write_world
from torch import nn

from focal_lab.data.classification.data_module import ClassificationDataModule
from focal_lab.data.sources.image_source import ArraySource
from focal_lab.tasks.features import Features
from focal_lab.training.cost import build_unweighted, configured_size
from focal_lab.training.lightning_cli import check_config
from focal_lab.utils.lazy_imports import find_class

EXPERIMENTS = [
    path.relative_to(ROOT)
    for path in sorted(ROOT.glob("experiments/*/*.yaml"))
    if "\nmodel:\n  class_path" in path.read_text(encoding="utf-8")
]
# of COCO's and ADE20K's validation images, most are so large
SIZES = {"Detection": (480, 640), "Segmentation": (512, 683)}
ASSUMED = {"Detection": (800, 1280), "Segmentation": (512, 2048)}


class SeenError(Exception):
    """The first image is at the network."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are looked for in the working folder."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What lies under `root`, for detection and segmentation."""
    return {
        task: write_world(tmp_path_factory.mktemp(task), [(600, 400), size, size], 80, 150)
        for task, size in SIZES.items()
    }


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def with_data(config: dict[str, Any], worlds: Mapping[str, Path]) -> dict[str, Any]:
    """The configuration with images to evaluate: few of the digits, or ours in place of large data sets."""
    data = config["data"]
    task = config["model"]["class_path"].rpartition(".")[2]
    options = {"num_val_images": 2, "batch_size": 1} if "Digits" in data["class_path"] else {"num_workers": 0}
    if "Coco" in data["class_path"]:
        options = coco_options(worlds[task])
    elif "Ade20k" in data["class_path"]:
        options = {key: value for key, value in folder_options(worlds[task]).items() if key != "image_size"}
    return config | {"data": data | {"init_args": data.get("init_args", {}) | options}}


def fed(module: Any, data: Any) -> list[tuple[int, int]]:
    """What a validation feeds to the network, image by image."""
    seen: list[tuple[int, int]] = []

    def note(_: nn.Module, given: Any) -> None:
        seen.append(tuple(given[0].shape[-2:]))
        raise SeenError

    target = next((part for part in module.modules() if isinstance(part, Features)), module.model)
    target.register_forward_pre_hook(note)
    module.eval()
    for number, batch in enumerate(data.val_dataloader()):
        with torch.no_grad(), pytest.raises(SeenError):
            module.validation_step(batch, number)
    return seen


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_an_experiment_is_counted_at_the_size_that_its_evaluation_feeds(
    path: Path, worlds: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = ArraySource(np.zeros((2, 300, 500, 3), np.uint8), np.zeros(2, np.int64), "noise")
    config = load(path)
    parsed = check_config(with_data(config, worlds))
    module = build_unweighted(parsed)
    data = find_class(parsed["data"]["class_path"])(**parsed["data"]["init_args"])
    if isinstance(data, ClassificationDataModule):
        monkeypatch.setattr(data, "find", lambda split: arrays)
    found = configured_size(module, parsed["data"])
    assert found.known
    assert found.size == most(fed(module, data))
    # a plan on a machine without the data says that it assumes the papers' size, or knows it
    without = configured_size(module, check_config(config)["data"])
    kind = config["model"]["class_path"].rpartition(".")[2]
    assert (without.size, without.known) == (found.size, True) or (
        (without.size, without.source) == (ASSUMED[kind], "assumed")
    )
