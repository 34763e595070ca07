"""What is not there is seen without a file being opened: all files of these tests are empty."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from focal_lab.data.classification.cifar import CifarDataModule
from focal_lab.data.classification.fashion_mnist import FashionMnistDataModule
from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.segmentation.mask_folder import Ade20kDataModule, SegmentationFolder
from focal_lab.errors import UserError

Made = Callable[..., Any]

COCO = ["train2017/", "val2017/", *(f"annotations/instances_{split}2017.json" for split in ("train", "val"))]
TESTED = ["test2017/", "annotations/test.json"]
MASKS = [f"{kind}/{split}/" for kind in ("images", "annotations") for split in ("training", "validation")]
IDX = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]

CIFAR = [
    f"cifar-10-batches-py/{name}"
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
]


def coco_tested(root: str) -> CocoDataModule:
    return CocoDataModule(root, test_images=TESTED[0], test_annotations=TESTED[1])


def named(root: str) -> ImageFolderDataModule:
    return ImageFolderDataModule(root, names="names.txt")


def make(root: Path, files: list[str]) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"")


def problem(made: Made, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        made(str(root)).check_files()
    return str(caught.value)


SETS = [
    (CocoDataModule, COCO, ["train_images", "val_images", "train_annotations", "val_annotations"]),
    (coco_tested, [*COCO, *TESTED], ["", "", "", "", "test_images", "test_annotations"]),
    (SegmentationFolder, [*MASKS, "classes.txt"], ["train_images", "val_images", "train_masks"]),
    (Ade20kDataModule, [*MASKS, "objectInfo150.txt"], ["", "", "", "val_masks", "classes"]),
    (named, ["train/a/0.jpg", "names.txt"], ["", "names"]),
    (ImageFolderDataModule, ["imagenet-train-000.tar", "imagenet-val-000.tar"], ["root"]),
    (ImageFolderDataModule, ["data/train-00000-of-00001.parquet"], ["root"]),
    (FashionMnistDataModule, IDX, ["root"] * 4),
    (CifarDataModule, CIFAR, ["root"] * len(CIFAR)),
]


@pytest.mark.parametrize(("made", "files", "keys"), SETS)
def test_each_folder_and_file_that_a_run_needs_is_looked_for(
    made: Made, files: list[str], keys: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    assert problem(made, root).startswith(f"{root}: data.init_args.root: ")
    make(root, files)
    made(str(root)).check_files()
    for name, key in zip(files, keys, strict=False):
        if key:
            shutil.move(root / name, tmp_path / "away")
            message = problem(made, root)
            assert f": data.init_args.{key}: " in message
            assert str(root if key == "root" else root / name) in message
            shutil.move(tmp_path / "away", root / name)


def test_one_archive_of_all_is_a_data_set_and_another_file_is_not(tmp_path: Path) -> None:
    make(tmp_path, ["all.zip", "all.txt", "flowers.tar.gz"])
    ImageFolderDataModule(str(tmp_path / "all.zip")).check_files()
    assert problem(ImageFolderDataModule, tmp_path / "all.txt").endswith("data.init_args.root: is a file")
    assert "compressed as a whole" in problem(ImageFolderDataModule, tmp_path / "flowers.tar.gz")


def test_paths_that_are_absolute_need_no_root_and_a_file_is_no_folder(tmp_path: Path) -> None:
    make(tmp_path, COCO)
    places = {"train_images": COCO[0], "val_images": COCO[1]}
    places |= {"train_annotations": COCO[2], "val_annotations": COCO[3]}
    absolute = {option: str(tmp_path / place) for option, place in places.items()}
    CocoDataModule("nowhere", **absolute).check_files()
    absolute["val_images"] = absolute["val_annotations"]
    with pytest.raises(UserError, match=r"data\.init_args\.val_images: is not a folder"):
        CocoDataModule("nowhere", **absolute).check_files()


def test_what_is_fetched_need_not_be_there(tmp_path: Path) -> None:
    CifarDataModule(str(tmp_path), download=True).check_files()
