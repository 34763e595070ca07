"""What a result says it was tested on: for every kind of data, whole or in part."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support import coco_data, mask_folders
from support.image_folders import class_folders, encoded, noise

from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.digits.scenes import DigitsDetection, DigitsSegmentation
from focal_lab.data.segmentation.mask_folder import SegmentationFolder
from focal_lab.data.test_set import below_common_folder
from focal_lab.tasks.tested import describe_test_set


class Finished:
    """Stands for a trainer that has run a test."""

    world_size = 1

    def __init__(self, data: Any, batches: int | None) -> None:
        self.test_dataloaders = data.test_dataloader()
        self.num_test_batches = [len(self.test_dataloaders) if batches is None else batches]


def described(data: Any, *, batches: int | None = None) -> dict[str, Any]:
    data.setup("test")
    return describe_test_set(Finished(data, batches), data, None)  # type: ignore[arg-type]


def differing(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    assert first.keys() == second.keys() == {"images", "labels", "classes", "class_names"}
    return {key for key in first if first[key] != second[key]}


def folder(root: Path, **options: Any) -> Any:
    return ImageFolderDataModule(str(root), image_size=28, batch_size=2, num_workers=0, **options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    class_folders(root / "train", {"cat": 2, "dog": 2})
    class_folders(root / "test", {"cat": 3, "dog": 2})
    return root


def test_where_a_folder_lies_does_not_matter_but_each_name_and_label_does(
    images: Path, tmp_path: Path
) -> None:
    first = described(folder(images))
    moved = shutil.copytree(images, tmp_path / "else" / "where")
    assert described(folder(moved)) == first
    (moved / "test/cat/2.jpg").rename(moved / "test/dog/2.jpg")
    assert differing(described(folder(moved)), first) == {"images", "labels"}
    (moved / "test/dog/2.jpg").unlink()
    assert differing(described(folder(moved)), first) == {"images", "labels"}


def test_exchanged_and_renamed_classes_are_reported_apart(images: Path) -> None:
    first = described(folder(images))
    names = images / "names.json"
    names.write_text(json.dumps({"cat": "dog", "dog": "cat"}))
    assert differing(described(folder(images, names="names.json")), first) == {"labels", "classes"}
    names.write_text(json.dumps({"cat": "Katze", "dog": "Hund"}))
    assert {"class_names", "classes"} < differing(described(folder(images, names="names.json")), first)


def test_a_tar_of_a_folder_has_the_same_images(images: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for split in ("train", "test"):
        with tarfile.open(packed / f"{split}.tar", "w") as tar:
            tar.add(images / split, arcname=split)
    first = described(folder(packed))
    assert first == described(folder(images))
    with tarfile.open(packed / "test.tar", "a") as tar:
        tar.add(images / "test/cat/0.jpg", arcname="test/cat/9.jpg")
    assert differing(described(folder(packed)), first) == {"images", "labels"}


def test_a_table_of_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    found = []
    for labels in ([0, 1, 0, 1], [0, 1, 1, 1]):
        root = tmp_path / str(len(found))
        (root / "data").mkdir(parents=True)
        for split, numbers in {"train": [0, 1], "test": labels}.items():
            images = [{"bytes": encoded(noise(i)), "path": None} for i in range(len(numbers))]
            table = arrow.table({"image": images, "label": numbers})
            parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")
        found.append(described(folder(root)))
    assert differing(*found) == {"labels"}


def test_coco_names_each_box_and_class(tmp_path: Path) -> None:
    def changed(name: str, change: Any = lambda made: None) -> dict[str, Any]:
        made = coco_data.content()
        change(made)
        return described(CocoDataModule(str(coco_data.write(tmp_path / name, made)), num_workers=0))

    def moved(made: Any) -> None:
        made["annotations"][0]["bbox"] = [5.0, 6.0, 20.0, 10.0]

    first = changed("first")
    assert changed("again") == first
    assert changed("turned", lambda made: made["annotations"].reverse()) == first
    assert differing(changed("box", moved), first) == {"labels"}
    other_class = changed("class", lambda made: made["annotations"][0].update(category_id=3))
    assert differing(other_class, first) == {"labels"}
    assert differing(changed("fewer", lambda made: made["images"].pop(2)), first) == {"images", "labels"}


def test_segmentation_names_each_mask(tmp_path: Path) -> None:
    def made(name: str, count: int = 3, numbers: tuple[int, ...] = (0, 1, 2, 255)) -> dict[str, Any]:
        mask_folders.write_world(tmp_path / name, numbers, count)
        places = {
            f"{split}_{kind}": f"{'images' if kind == 'images' else 'annotations'}/{lies}"
            for split, lies in {"train": "training", "val": "validation"}.items()
            for kind in ("images", "masks")
        }
        return described(SegmentationFolder(str(tmp_path / name), num_workers=0, **places))  # type: ignore[arg-type]

    first = made("first")
    assert made("again") == first
    assert differing(made("masks", numbers=(0, 1)), first) == {"labels"}
    assert differing(made("more", count=4), first) == {"images", "labels"}


@pytest.mark.parametrize("kind", [DigitsClassification, DigitsDetection, DigitsSegmentation])
def test_embedded_digits_are_those_of_their_options(kind: Any) -> None:
    def made(**options: Any) -> dict[str, Any]:
        return described(kind(**{"num_test_images": 7, "num_train_images": 8, "batch_size": 2} | options))

    first = made()
    assert made(num_train_images=16, batch_size=3, seed=5, num_workers=1) == first
    assert "images" in differing(made(pieces=0), first)
    assert "images" in differing(made(num_test_images=6), first)


def test_a_test_of_some_batches_names_their_images(images: Path) -> None:
    whole, part = described(folder(images)), described(folder(images), batches=1)
    assert differing(part, whole) == {"images", "labels"}
    (images / "test/dog/1.jpg").unlink()  # beyond the first batch
    assert described(folder(images), batches=1) == part


def test_a_data_module_of_ones_own_tells_its_classes_alone() -> None:
    class Own:
        class_names = ("a", "b")

        def setup(self, stage: str) -> None: ...

        def test_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.zeros(4, 3), batch_size=2)  # type: ignore[arg-type]

    assert described(Own()).keys() == {"classes", "class_names"}


def test_paths_lose_the_folders_that_all_have() -> None:
    assert below_common_folder(["/d/val/cat/0.png", "/d/val/car/0.png"]) == ["cat/0.png", "car/0.png"]
    assert below_common_folder(["/d/a.parquet#0", "/d/a.parquet#1"]) == ["a.parquet#0", "a.parquet#1"]
    assert below_common_folder(["/d/a", "/d/a"]) == ["a", "a"]
    assert below_common_folder([]) == []
