"""Two processes evaluate an odd number of images as one does: each image once, whatever the data."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.evaluated_tasks import evaluate
from support.mask_folders import write_world
from support.recorded_fit import in_processes

COUNT = 7
TWO = {"devices": 2, "strategy": "ddp"}
SCENES = {"image_size": 32, "smallest": 12, "largest": 20, "num_test_images": COUNT, "num_workers": 0}


def _pictures(root: Path, prefix: str = "") -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for i in range(COUNT):
            folder = root / split / f"{prefix}{'ab'[i % 2]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(256, size=(28, 28, 3)).astype(np.uint8)).save(folder / f"{i}.png")


def _coco(root: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "img").mkdir()
    made: dict[str, Any] = {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    made["images"] = [
        {"id": 10 * i, "file_name": f"{i}.png", "width": 48, "height": 32} for i in range(COUNT)
    ]
    made["annotations"] = [
        {
            **{"id": 100 * i + j, "image_id": 10 * i, "category_id": 1 + j % 2, "iscrowd": 0},
            **{"bbox": [2.0 + 4 * j, 3.0 + i, 12.0, 10.0], "area": 120.0},
        }
        for i in range(COUNT)
        for j in range(1 + i % 3)
    ]
    for image in made["images"]:
        pixels = rng.integers(256, size=(32, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "img" / image["file_name"])
    (root / "all.json").write_text(json.dumps(made), encoding="utf-8")


def data_of(kind: str, root: Path) -> tuple[str, str, dict[str, Any]]:
    """Task, class and options of a data module, whose files are written."""
    where = {"root": str(root), "num_workers": 0}
    if kind in ("folder", "tar"):
        _pictures(root)
        for split in ("train", "val", "test") if kind == "tar" else ():
            with tarfile.open(root / f"{split}.tar", "w") as tar:
                tar.add(root / split, arcname=split)
            for file in (root / split).rglob("*.png"):
                file.unlink()
            for folder in (*(root / split).iterdir(), root / split):
                folder.rmdir()
        return "classification", "ImageFolderDataModule", where | {"image_size": 28}
    if kind == "coco":
        _coco(root)
        images, file = "img", "all.json"
        splits = {f"{split}_images": images for split in ("train", "val")}
        splits |= {f"{split}_annotations": file for split in ("train", "val")}
        return "detection", "CocoDataModule", where | splits
    if kind == "masks":
        write_world(root, count=COUNT)
        return (
            "segmentation",
            "SegmentationFolder",
            where
            | {
                f"{split}_{name}": f"{'images' if name == 'images' else 'annotations'}/{lies}"
                for split, lies in {"train": "training", "val": "validation"}.items()
                for name in ("images", "masks")
            },
        )
    if kind == "digits":
        return "classification", "DigitsClassification", {"num_test_images": COUNT}
    task = {"scenes": "detection", "semantic scenes": "segmentation"}[kind]
    return task, f"Digits{task.capitalize()}", SCENES


@pytest.mark.parametrize("kind", ["digits", "folder", "tar", "scenes", "coco", "semantic scenes", "masks"])
def test_two_processes_evaluate_what_one_does(kind: str, tmp_path: Path) -> None:
    task, module, options = data_of(kind, tmp_path)

    def data(batch_size: int) -> dict[str, Any]:
        made = {"batch_size": batch_size} | options
        return {"class_path": f"focal_lab.data.{module}", "init_args": made}

    alone, first, second = (
        evaluate(task, data(4), Path("one")),
        *in_processes(2, _evaluate_two, task, data(2), Path("two"), {}),
    )
    assert alone["tested_on"]["count"] == COUNT
    assert first["tested_on"] == second["tested_on"] == alone["tested_on"]
    assert len(alone["metrics"]) >= 3
    assert second["predictions"] is None  # the first process has those of both
    assert_same_arrays(first["predictions"], alone["predictions"])
    for name, value in alone["metrics"].items():
        for other in (first, second):
            assert other["metrics"][name] == pytest.approx(value, abs=1e-4, nan_ok=True), name

    (part,) = in_processes(1, _evaluate_two, task, data(4), Path("part"), {"limit_test_batches": 1})
    parts = in_processes(2, _evaluate_two, task, data(2), Path("parts"), {"limit_test_batches": 1})
    assert part["tested_on"]["count"] == 4
    assert part["tested_on"]["images"] != alone["tested_on"]["images"]
    assert_same_arrays(parts[0]["predictions"], part["predictions"])
    for other in parts:
        assert other["tested_on"] == part["tested_on"]
        for name, value in part["metrics"].items():
            assert other["metrics"][name] == pytest.approx(value, abs=1e-4, nan_ok=True), name


def assert_same_arrays(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys() != set()
    for name, values in wanted.items():
        assert found[name].shape == values.shape, name
        # batches of other sizes round otherwise
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def _evaluate_two(task: str, data: dict[str, Any], folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import os

    several = TWO if os.environ["WORLD_SIZE"] == "2" else {}
    return evaluate(task, data, folder, **several, **options)
