"""A test on the images that have chosen the best epoch is validation, whatever their folder is called."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from support.coco_data import content, write
from support.image_folders import class_folders, open_folder
from support.mask_folders import write_world

from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.overlap import all_among
from focal_lab.data.segmentation.mask_folder import SegmentationFolder


def folders(root: Path) -> Any:
    class_folders(root / "train", {"cat": 3, "dog": 3})
    class_folders(root / "val", {"cat": 2, "dog": 2})
    return lambda: open_folder(root, batch_size=2)


def archives(root: Path) -> Any:
    class_folders(root / "images", {"cat": 2, "dog": 2})
    for split in ("train", "val"):
        with ZipFile(root / f"{split}.zip", "w") as archive:
            for file in (root / "images").rglob("*.jpg"):
                archive.write(file, f"{file.parent.name}/{file.name}")
    shutil.rmtree(root / "images")
    return lambda: open_folder(root, batch_size=2)


def masks(root: Path) -> Any:
    write_world(root)
    places = {"test_images": "images/test", "test_masks": "annotations/test"}
    return lambda: SegmentationFolder(str(root), **places, image_size=32, batch_size=1)


def boxes(root: Path) -> Any:
    write(root, content())
    shutil.copy(root / "annotations/instances_val2017.json", root / "annotations/test.json")
    places = {"test_images": "test", "test_annotations": "annotations/test.json"}
    return lambda: CocoDataModule(str(root), **places)


KINDS = {
    "folders": (folders, ["val"], ["test"]),
    "archives": (archives, ["val.zip"], ["test.zip"]),
    "masks": (masks, ["images/validation", "annotations/validation"], ["images/test", "annotations/test"]),
    "boxes": (boxes, ["val2017"], ["test"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_that_is_a_link_to_validation_is_validation_and_a_copy_is_not(
    tmp_path: Path, kind: str
) -> None:
    make, validation, test = KINDS[kind]
    data = make(tmp_path)
    for there, here in zip(validation, test, strict=True):
        (tmp_path / here).symlink_to((tmp_path / there).name)
    assert data().tests_on_validation
    for there, here in zip(validation, test, strict=True):
        (tmp_path / here).unlink()
        copy: Any = shutil.copytree if (tmp_path / there).is_dir() else shutil.copy
        copy(tmp_path / there, tmp_path / here)
    assert not data().tests_on_validation


def test_one_annotation_file_for_both_is_validation_in_whatever_folder_its_images_lie(tmp_path: Path) -> None:
    write(tmp_path, content())
    shutil.copytree(tmp_path / "val2017", tmp_path / "copies")
    file = "annotations/../annotations/instances_val2017.json"
    places = {"test_images": "copies", "test_annotations": file}
    assert CocoDataModule(str(tmp_path), **places).tests_on_validation
    # the file of another folder with images in common
    part = content()
    part["images"] = part["images"][:2]
    part["annotations"] = part["annotations"][:3]
    (tmp_path / "part.json").write_text(json.dumps(part))
    places = {"test_images": "val2017", "test_annotations": "part.json"}
    assert CocoDataModule(str(tmp_path), **places).tests_on_validation


def test_links_to_single_files_are_followed_and_a_part_in_common_is_counted(tmp_path: Path) -> None:
    validated = [tmp_path / "val" / f"{number}.jpg" for number in range(3)]
    tested = [tmp_path / "test" / f"other {number}.jpg" for number in range(3)]
    for there, here in zip(validated, tested, strict=True):
        there.parent.mkdir(exist_ok=True)
        here.parent.mkdir(exist_ok=True)
        there.touch()
        here.symlink_to(there)
    paths = [[str(path) for path in files] for files in (tested, validated)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all_among(*paths)
        assert not all_among([], paths[1])
        assert not all_among(["test.parquet#0"], ["val.parquet#0"])
        assert all_among(["./test.parquet#0"], ["test.parquet#0", "test.parquet#1"])
    with pytest.warns(UserWarning, match="2 of 3 test images are also validation images"):
        assert not all_among(paths[0], paths[1][:2])


TRAINED = {
    "folders": (folders, "train", "test"),
    "masks": (masks, "images/training", "images/test"),
    "boxes": (boxes, "annotations/instances_train2017.json", "annotations/test.json"),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_test_that_is_a_link_to_what_is_trained_on_is_warned_of(tmp_path: Path, kind: str) -> None:
    make, trained, test = TRAINED[kind]
    data = make(tmp_path)
    (tmp_path / test).unlink(missing_ok=True)
    (tmp_path / test).symlink_to((tmp_path / trained).name)
    with pytest.warns(
        UserWarning, match=f"{test}: is also used for training: the metrics of test say nothing"
    ):
        set_up(data(), kind)
    (tmp_path / test).unlink()
    copy: Any = shutil.copytree if (tmp_path / trained).is_dir() else shutil.copy
    copy(tmp_path / trained, tmp_path / test)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*also used for training")
        set_up(data(), kind)


def set_up(data: Any, kind: str) -> None:
    """For training, and where that alone looks at it for the test."""
    data.setup("fit")
    if kind == "folders":
        data.setup("test")
