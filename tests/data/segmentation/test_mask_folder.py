"""Folders of images and masks: labels are what the masks say, and what is wrong is said in one line."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT
from support.mask_folders import NAMES, write_world

from focal_lab.cli import main
from focal_lab.data.segmentation.mask_files import read_classes
from focal_lab.data.segmentation.mask_folder import Ade20kDataModule, SegmentationFolder
from focal_lab.errors import UserError


def folder(root: Path, **options: Any) -> SegmentationFolder:
    return SegmentationFolder(str(root), **{"num_workers": 0, "image_size": 32, "short_side": 32} | options)


def ade(root: Path, **options: Any) -> Ade20kDataModule:
    rows = [f"{i}\t0.1\t10\t1\tname{i}, other name" for i in range(1, 151)]
    header = "Idx\tRatio\tTrain\tVal\tName"
    (root / "objectInfo150.txt").write_text("\n".join([header, *rows]), encoding="utf-8")
    return Ade20kDataModule(str(root), num_workers=0, **options)


def mask_of(root: Path, name: str = "p0", split: str = "training") -> Path:
    return root / "annotations" / split / f"{name}.png"


def test_evaluation_has_whole_images_and_the_masks_own_numbers(tmp_path: Path) -> None:
    data = folder(write_world(tmp_path))
    data.setup("validate")
    images, targets = next(iter(data.val_dataloader()))
    assert [tuple(image.shape) for image in images] == [(3, 40, 60)] * 2
    assert [int(target["image_id"]) for target in targets] == [0, 1]
    with Image.open(mask_of(tmp_path, "p1", "validation")) as mask:
        assert np.array_equal(targets[1]["mask"].numpy(), np.array(mask))
    assert targets[1]["mask"].dtype == torch.uint8
    assert type(targets[1]["mask"]) is torch.Tensor
    blue = images[0] * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
    assert blue[2, 2:18, 2:8].mean() == pytest.approx(220 / 255, abs=0.05)


def test_ade20ks_zero_is_no_class_and_its_names_come_from_its_own_file(tmp_path: Path) -> None:
    data = ade(write_world(tmp_path, (0, 1, 150, 7)))
    data.setup("validate")
    assert (data.num_classes, data.class_names[0], data.category_ids[-1]) == (150, "name1", 150)
    _, targets = next(iter(data.val_dataloader()))
    assert set(targets[0]["mask"].unique().tolist()) == {255, 0, 149, 6}


def test_training_crops_have_the_size_and_only_labels_that_were_there(tmp_path: Path) -> None:
    data = folder(write_world(tmp_path), scale_range=(0.3, 3.0))
    data.setup("fit")
    seen: set[int] = set()
    torch.manual_seed(0)
    for _ in range(10):
        for images, targets in data.train_dataloader():
            assert all(image.shape == (3, 32, 32) for image in images)
            assert all(target["mask"].shape == (32, 32) for target in targets)
            seen |= {value for target in targets for value in target["mask"].unique().tolist()}
    assert seen == {0, 1, 2, 255}


def test_masks_follow_their_images_through_crops_and_mirrors(tmp_path: Path) -> None:
    # each class has a colour of its own: after any augmentation but of colour they must still agree
    data = folder(write_world(tmp_path, (0, 1, 2)), photometric=False, scale_range=(1.0, 4.0))
    data.setup("fit")
    colours = torch.tensor([(30, 60, 220), (40, 200, 50), (120, 110, 100)]) / 255
    torch.manual_seed(0)
    agreeing = total = 0
    for _ in range(5):
        for images, targets in data.train_dataloader():
            for image, target in zip(images, targets, strict=True):
                pixels = image * torch.tensor(data.std).view(3, 1, 1)
                pixels = pixels + torch.tensor(data.mean).view(3, 1, 1)
                distance = (pixels[:, None] - colours.T[:, :, None, None]).square().sum(0)
                valid = target["mask"] != 255
                agreeing += int((distance.argmin(0) == target["mask"])[valid].sum())
                total += int(valid.sum())
    assert agreeing / total > 0.9  # jpeg and interpolation blur the edges


def test_crops_of_one_class_are_drawn_again(tmp_path: Path) -> None:
    world = write_world(tmp_path, (0, 1), count=1)
    for path in (world / "annotations" / "training").iterdir():
        mask = np.zeros((40, 60), np.uint8)
        mask[:8, :8] = 1  # a corner that few crops have in them
        Image.fromarray(mask).save(path)

    def share(most: float) -> float:
        data = folder(
            world, image_size=16, short_side=40, scale_range=(1.0, 1.0), most_of_one_class=most, batch_size=1
        )
        data.setup("fit")
        torch.manual_seed(0)
        found = [next(iter(data.train_dataloader()))[1][0]["mask"] for _ in range(60)]
        return sum(1 in mask for mask in found) / 60

    assert share(0.9) > share(1.0) + 0.1


def test_grey_and_turned_images_fit_their_masks(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    image = world / "images" / "validation" / "p0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees: shown 40 x 60, stored 60 x 40
    with Image.open(image) as opened:
        opened.convert("L").save(image, exif=exif)
    data = folder(world)
    data.setup("validate")
    assert next(iter(data.val_dataloader()))[0][0].shape == (3, 40, 60)
    with Image.open(mask_of(world, split="validation")) as mask:
        mask.transpose(Image.Transpose.ROTATE_90).save(mask_of(world, split="validation"))
    data = folder(world)
    data.setup("validate")
    images, targets = next(iter(data.val_dataloader()))
    assert images[0].shape == (3, 60, 40)
    assert targets[0]["mask"].shape == (60, 40)


def test_masks_of_16_bits_have_more_than_255_classes(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    (world / "classes.json").write_text(json.dumps({"classes": [f"c{i}" for i in range(400)]}))
    for split in ("training", "validation"):
        for path in (world / "annotations" / split).iterdir():
            Image.fromarray(np.full((40, 60), 399, np.uint16)).save(path)
    data = folder(world, classes="classes.json", ignore_index=65535)
    data.setup("validate")
    assert next(iter(data.val_dataloader()))[1][0]["mask"].unique().tolist() == [399]


def test_class_names_come_from_lists_and_lines(tmp_path: Path) -> None:
    assert read_classes(write_world(tmp_path) / "classes.txt") == NAMES
    (tmp_path / "list.json").write_text('["a", "b"]', encoding="utf-8")
    assert read_classes(tmp_path / "list.json") == ("a", "b")
    (tmp_path / "windows.txt").write_bytes("\ufeffa \r\nb\r\n".encode())
    assert read_classes(tmp_path / "windows.txt") == ("a", "b")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_class_names_may_come_from_windows(tmp_path: Path, encoding: str, suffix: str) -> None:
    file, names = tmp_path / f"classes.{suffix}", ["Himmel", "\u00d6de"]
    text = "\r\n".join(names) + "\r\n" if suffix == "txt" else json.dumps(names, indent=1, ensure_ascii=False)
    file.write_bytes(text.replace("\n", "\r\n").replace("\r\r", "\r").encode(encoding))
    assert read_classes(file) == tuple(names)


def test_a_palette_is_taken_where_that_is_said(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    for split in ("training", "validation"):
        for path in (world / "annotations" / split).iterdir():
            with Image.open(path) as mask:
                made = Image.fromarray(np.array(mask)).convert("P")
                made.putpalette(list(range(256)) * 3)
                made.save(path)
    data = folder(world, palette_masks=True)
    data.setup("validate")
    assert set(next(iter(data.val_dataloader()))[1][0]["mask"].unique().tolist()) == {0, 1, 2, 255}
    with Image.open(mask_of(world)) as mask:
        mask.load()
    mask.putpalette([0, 1, 2, 9, 9, 9])  # in training 1 has another colour than in validation
    for path in (world / "annotations" / "training").iterdir():
        mask.save(path)
    with pytest.raises(UserError, match=r"\(3, 4, 5\) for 1, and .*training/p0.png has \(9, 9, 9\)"):
        folder(world, palette_masks=True).setup("fit")


def spoil(change: Callable[[Path], object]) -> Callable[[Path], Any]:
    def made(root: Path) -> dict[str, Any]:
        change(write_world(root))
        return {}

    return made


def save(pixels: Any, mode: str | None = None) -> Callable[[Path], None]:
    def made(root: Path) -> None:
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        (image.convert(mode) if mode else image).save(mask_of(root))

    return made


def empty(root: Path, place: str) -> None:
    for path in (root / place).iterdir():
        path.unlink()


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mask of another size": (
        spoil(save(np.zeros((30, 60)))),
        "annotations/training/p0.png: is 60 x 30 px, and its image",
    ),
    "missing mask": (
        spoil(lambda root: mask_of(root, "p1").unlink()),
        "annotations/training/p1.png: does not exist, but",
    ),
    "palette": (spoil(save(np.zeros((40, 60)), "P")), "p0.png: data.init_args.palette_masks: has a palette"),
    "rgb": (spoil(save(np.zeros((40, 60, 3)))), "p0.png: has RGB pixels; a mask has one channel"),
    "label above the count": (
        spoil(save(np.full((40, 60), 7))),
        "p0.png: has the value 7 in 2400 pixels, and there are 3 classes (use 0 to 2 or 255",
    ),
    "no classes file": (
        spoil(lambda root: (root / "classes.txt").unlink()),
        "classes.txt: data.init_args.classes: does not exist; it names the classes",
    ),
    "empty classes file": (
        spoil(lambda root: (root / "classes.txt").write_text("")),
        "classes.txt: data.init_args.classes: is not a list of names",
    ),
    "a name twice": (
        spoil(lambda root: (root / "classes.txt").write_text("a\nb\na\n")),
        "classes.txt: data.init_args.classes: names 'a' twice",
    ),
    "no images": (
        spoil(lambda root: empty(root, "images/training")),
        "images/training: data.init_args.train_images: has no images",
    ),
    "no masks": (
        spoil(lambda root: empty(root, "annotations/training")),
        "annotations/training: data.init_args.train_masks: has no masks",
    ),
    "no folder": (lambda root: {}, "images/training: data.init_args.train_images: is not a folder"),
    "damaged mask": (
        spoil(lambda root: mask_of(root).write_bytes(b"nothing")),
        "p0.png: cannot be read as a mask",
    ),
    "cut off mask": (
        spoil(lambda root: mask_of(root).write_bytes(mask_of(root).read_bytes()[:-40])),
        "p0.png: cannot be read as a mask",
    ),
    "damaged image": (
        spoil(lambda root: (root / "images/training/p0.jpg").write_bytes(b"nothing")),
        "p0.jpg: cannot be decoded as an image",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_before_training(what: str, tmp_path: Path) -> None:
    spoiled, message = WRONG[what]
    spoiled(tmp_path)
    with pytest.raises(UserError) as error:
        folder(tmp_path).setup("fit")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image_size", 0),
        ("long_side", 3),
        ("scale_range", (2.0, 0.5)),
        ("flip", 1.5),
        ("most_of_one_class", 0.0),
        ("ignore_index", 70000),
        ("batch_size", 0),
        ("num_workers", -1),
        ("std", (1.0, 0.0, 1.0)),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        folder(tmp_path, **{option: value})
    assert error.value.key == f"data.init_args.{option}"


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        (
            (0, 1, 255),
            {},
            "is of the class road (1 of 3); pixels: sky 2400, tree 2400, road 0, ignored (255) 2400",
        ),
        ((0, 255), {}, "is of the class tree, road (2 of 3); pixels: sky 3600, tree 0"),
        (
            (0, 1, 2),
            {"reduce_zero_label": True},
            "class road (1 of 3); pixels: sky 2400, tree 2400, road 0, ign",
        ),
        ((0, 1, 2, 255), {}, None),
    ],
)
def test_classes_that_never_occur_are_named_with_the_pixels_of_all(
    tmp_path: Path, numbers: tuple[int, ...], options: dict[str, Any], message: str | None, checked: bool
) -> None:
    data = folder(write_world(tmp_path, numbers), check_masks=checked, **options)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data.setup("validate")
    found = [str(warning.message) for warning in seen]
    assert (
        (message in found[0] and "annotations/validation: no pixel of 3 masks" in found[0])
        if message
        else not found
    )


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        ((255,), {}, "val_masks: all 7200 pixels of 3 masks are 255, which is ignored"),
        ((0,), {"reduce_zero_label": True}, "val_masks: all 7200 pixels of 3 masks are 0 or 255"),
        ((0, 1), {"ignore_index": 1}, "ignore_index: 1 is among the numbers of the 3 classes (use 255"),
        ((0, 1), {"ignore_index": 0}, "where 0 means no class: reduce_zero_label"),
        ((1, 2), {"ignore_index": 3, "reduce_zero_label": True}, "3 is among the numbers of the 3 classes"),
    ],
)
def test_masks_without_a_pixel_that_counts_and_an_ignored_class_are_refused(
    tmp_path: Path, numbers: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        folder(write_world(tmp_path, numbers), **options).setup("validate")
    assert message in str(error.value)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 is more than the 3 training images"):
        folder(write_world(tmp_path), batch_size=4).setup("fit")


def test_the_command_line_reports_it_in_one_line_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask_of(write_world(tmp_path)).unlink()
    experiment = ROOT / "experiments" / "ade20k" / "segmentation.yaml"
    ade(tmp_path)
    arguments = ["--model.backbone=focal_micro", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    arguments += [f"--data.root={tmp_path}", f"--trainer.default_root_dir={tmp_path}"]
    arguments += ["--model.backbone_options={img_size: 64}", "--trainer.precision=32"]
    assert main(["fit", "--config", str(experiment), *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("focal-lab: ")
    assert "annotations/training/p0.png: does not exist" in last


def test_a_mask_with_an_images_whole_name_is_its_own_and_one_for_two_images_is_refused(
    tmp_path: Path,
) -> None:
    write_world(tmp_path, count=2)
    images = tmp_path / "images/validation"
    (images / "p1.jpg").rename(images / "p0.bmp.png")  # whose stem is p0.bmp
    Image.open(images / "p0.jpg").save(images / "p0.bmp")
    masks = tmp_path / "annotations/validation"
    (masks / "p1.png").rename(masks / "p0.bmp.png")
    with pytest.raises(
        UserError, match=r"p0\.bmp\.png: is the mask of p0\.bmp and of p0\.bmp\.png \(call masks"
    ):
        folder(tmp_path).setup("validate")
    (images / "p0.bmp.png").unlink()
    data = folder(tmp_path)
    assert [one.mask and one.mask.name for one in data.masked_images("val")] == ["p0.bmp.png", "p0.png"]
    (masks / "p0.bmp.png").unlink()
    with pytest.raises(UserError, match=r"p0\.png: is the mask of p0\.bmp and of p0\.jpg"):
        folder(tmp_path).setup("validate")


def test_masks_that_are_not_read_are_named(tmp_path: Path) -> None:
    masks = write_world(tmp_path) / "annotations/validation"
    (tmp_path / "images/validation/p1.jpg").unlink()
    for junk in ("._p0.png", "Thumbs.db", "colours.gif"):
        (masks / junk).write_bytes(b"junk")
    data = folder(tmp_path)
    with pytest.warns(UserWarning, match="masks have no image") as found:
        assert len(data.masked_images("val")) == 2
    lines = [str(one.message).removeprefix(f"{masks}: ") for one in found]
    assert lines == [
        "not read: 1 .gif files (colours.gif), 2 hidden or system files (._p0.png, ...)",
        "1 masks have no image: p1.png",
    ]
    (masks / "p0.PNG").write_bytes((masks / "p0.png").read_bytes())
    with pytest.raises(UserError, match=r"is the mask of the same image as p0\.PNG"):
        folder(tmp_path).masked_images("val")
    for file in masks.glob("*.[pP][nN][gG]"):
        file.unlink()
    with pytest.raises(UserError, match=r"has no masks \(\.png\); found 1 \.gif files"):
        folder(tmp_path).masked_images("val")
