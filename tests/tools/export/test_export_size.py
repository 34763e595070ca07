"""A checkpoint is exported at the size at which it was evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.sized_project import coco_options, folder_options, write_world
from support.trained_run import export

from focal_lab import cli

# class of the data, its options, class of the task, its options, and what evaluation feeds to the network
_CASES: dict[str, tuple[str, Any, str, dict[str, Any], tuple[int, int]]] = {
    "detector": (
        "CocoDataModule",
        coco_options,
        "Detection",
        {
            "method": "retinanet",
            "num_classes": 10,
            "min_size": [192],
            "max_size": 256,
            "pyramid_channels": 32,
        },
        (192, 256),
    ),
    "segmenter": (
        "SegmentationFolder",
        folder_options,
        "Segmentation",
        {"num_classes": 11, "decoder": "fpn", "decoder_channels": 32, "test_size": 96},
        (96, 128),
    ),
    "whole": (
        "SegmentationFolder",
        folder_options,
        "Segmentation",
        {"num_classes": 11, "decoder": "fpn", "decoder_channels": 32, "test_size": None},
        (64, 64),
    ),
}


@pytest.mark.parametrize("name", _CASES)
def test_the_exported_files_input_has_the_size_of_evaluation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, options, task, model, (height, width) = _CASES[name]
    world = write_world(tmp_path / "data", [(64, 48), (48, 64), (48, 64)])
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": "run"} | quiet,
        "model": {
            "class_path": f"focal_lab.tasks.{task}",
            "init_args": model | {"backbone": "test_resnet", "warmup_steps": 0},
        },
        "data": {"class_path": f"focal_lab.data.{data}", "init_args": options(world) | {"batch_size": 2}},
    }
    Path("fit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert cli.main(["fit", "--config", "fit.yaml"]) == 0
    assert export("run", "--to", "torch_export", "--batch", 1, "--output", "made.pt2") == 0
    program = torch.export.load("made.pt2")
    (given,) = program.graph_signature.user_inputs
    (node,) = [node for node in program.graph.nodes if node.name == given]
    assert tuple(node.meta["val"].shape) == (1, 3, height, width)
