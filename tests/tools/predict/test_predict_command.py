"""`focal-lab predict CHECKPOINT IMAGES...` on trained networks of every task."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.trained_run import FOCAL, NARROW, save_pictures, train

from focal_lab import cli
from focal_lab.data.loading.decode import load_image
from focal_lab.data.segmentation.mask_folder import SegmentationFolder
from focal_lab.errors import UserError
from focal_lab.tools.predict.images import find_images
from focal_lab.tools.trained.load import open_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of each task, and one that kept a moving average."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "classes", "Classification", FOCAL, NARROW, ema_decay=0.9)
    train(folder / "plain", "Classification", "test_resnet")
    train(folder / "boxes", "Detection", "test_resnet", method="mask_rcnn", head_width=32)
    train(folder / "pixels", "Segmentation", "test_resnet")
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with images, one of which is damaged."""
    monkeypatch.chdir(tmp_path)
    save_pictures(Path("photos"), "b.png", "a.jpg", "damaged.png")
    save_pictures(Path("photos/more"), "7.png", size=(60, 64))
    return trained


def predict(*argv: object) -> int:
    return cli.main(["predict", *map(str, argv)])


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def message_of(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that reports a mistake."""
    assert predict(*argv) == cli.USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("focal-lab: ")


def test_a_row_for_each_of_the_likeliest_classes_and_one_for_what_cannot_be_read(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(project / "classes", "photos", "--batch-size", 2, "--workers", 0) == 0
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    files = ["photos/a.jpg", "photos/b.png", "photos/damaged.png", "photos/more/7.png"]
    assert list(dict.fromkeys(row["file"] for row in rows)) == files
    read = [row for row in rows if row["file"] != "photos/damaged.png"]
    assert [row["rank"] for row in read] == [str(rank) for rank in range(1, 6)] * 3
    (broken,) = (row for row in rows if row["file"] == "photos/damaged.png")
    assert (broken["index"], broken["rank"], broken["probability"]) == ("2", "", "")
    assert broken["class"].startswith("unreadable: cannot be decoded as an image")
    assert "3 of 4 images predicted, 1 unreadable" in captured.err
    assert "images/s in the network" in captured.err


def test_the_table_has_the_networks_probabilities_of_the_preprocessed_image(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = open_trained(str(project / "classes"), Path("runs"))
    transform = known.preprocessing().transform
    assert transform is not None
    shown = transform(load_image("photos/a.jpg"))
    assert shown.shape == (3, 28, 28)
    with torch.no_grad():
        expected = known.module(shown[None]).softmax(-1)[0].sort(descending=True)
    assert predict(project / "classes", "photos/a.jpg", "--top", 10) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [int(row["class"]) for row in rows] == expected.indices.tolist()
    found = [float(row["probability"]) for row in rows]
    assert found == pytest.approx(expected.values.tolist(), abs=1e-4)


def test_the_moving_average_is_another_network(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for weights in ("raw", "ema"):
        assert predict(project / "classes", "photos/a.jpg", "--weights", weights) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] != tables[1]
    line = message_of(capsys, project / "plain", "photos", "--weights", "ema")
    assert "has no moving average of its weights" in line
    assert line.startswith("--weights: ")


def test_workers_and_precision_change_no_order(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [project / "classes", "photos", "--batch-size", 1]
    assert predict(*argv, "--workers", 0) == 0
    expected = rows_of(capsys.readouterr().out)
    assert predict(*argv, "--workers", 2, "--precision", "bf16-mixed", "--device", "cpu") == 0
    found = rows_of(capsys.readouterr().out)
    assert [(row["file"], row["rank"]) for row in found] == [(row["file"], row["rank"]) for row in expected]


def test_a_detection_writes_cocos_results_and_drawn_images(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(project / "boxes", "photos", "--output", "found") == 0
    assert "photos/damaged.png: cannot be decoded" in capsys.readouterr().err
    results = json.loads(Path("found/predictions.json").read_text(encoding="utf-8"))
    assert {entry["file_name"] for entry in results} == {"a.jpg", "b.png", "7.png"}
    # an ID a file: a name that is a number is one only where all are
    assert {(entry["image_id"], entry["file_name"]) for entry in results} == {
        (0, "a.jpg"),
        (1, "b.png"),
        (3, "7.png"),
    }
    assert all(entry["segmentation"]["size"] == [64, 60] for entry in results if entry["image_id"] == 3)
    drawn = {path.name for path in Path("found/pictures").iterdir()}
    assert drawn == {"a.png", "b.png", "7.png"}


def test_a_segmentation_writes_masks_of_the_images_own_size(project: Path) -> None:
    assert predict(project / "pixels", "photos/*.*", "--output", "found") == 0
    assert {path.name for path in Path("found/masks").iterdir()} == {"a.png", "b.png"}
    with Image.open("found/masks/a.png") as mask:
        assert mask.size == (40, 30)
        assert int(np.asarray(mask).max()) <= 10
        predicted = np.asarray(mask)
    # the data module reads them back as they are, although a.png is the mask of a.jpg
    Path("photos/damaged.png").unlink()
    shutil.rmtree("photos/more")
    Path("classes.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    folders = {"train_images": "photos", "val_images": "photos"}
    masks = {"train_masks": "found/masks", "val_masks": "found/masks"}
    data = SegmentationFolder(".", **folders, **masks, image_size=32, num_workers=0, batch_size=1)
    data.setup("validate")
    read = [target for _, targets in data.val_dataloader() for target in targets]
    assert any(np.array_equal(target["mask"].numpy(), predicted) for target in read)


def test_the_status_is_1_if_no_image_can_be_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(project / "classes", "photos/damaged.png", "--output", "table.csv") == 1
    captured = capsys.readouterr()
    assert "0 of 1 images predicted, 1 unreadable" in captured.err
    (row,) = rows_of(Path("table.csv").read_text(encoding="utf-8"))
    assert row["class"].startswith("unreadable")


def test_a_table_appears_whole_and_is_not_overwritten(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [project / "classes", "photos", "--output", "table.csv", "--top", 1]
    assert predict(*argv) == 0
    assert len(rows_of(Path("table.csv").read_text(encoding="utf-8"))) == 4
    capsys.readouterr()
    assert message_of(capsys, *argv) == "table.csv: --output: exists (overwrite it with --force)"
    assert predict(*argv, "--force") == 0
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


MISTAKES = {
    "no such checkpoint": (["missing.ckpt", "photos"], "missing.ckpt: there is no such file or folder"),
    "weights alone": (["weights.pth", "photos"], "weights.pth: contains only weights"),
    "another file": (["notes.ckpt", "photos"], "notes.ckpt: cannot be read as weights"),
    "no such image": (["classes", "cat.jpg"], "cat.jpg: there is no such image or folder"),
    "an empty folder": (["classes", "empty"], "empty: has no images (.jpg"),
    "a pattern of nothing": (["classes", "*.jpg"], "*.jpg: matches no image"),
    "too many classes": (["classes", "photos", "--top", "11"], "--top: 11 is more than the 10 classes"),
    "no classes": (["classes", "photos", "--top", "0"], "--top: 0 is too few; use 1 or more"),
    "no batch": (["classes", "photos", "--batch-size", "0"], "--batch-size: 0 is too few"),
    "a score above 1": (["boxes", "photos", "--min-score", "2"], "--min-score: 2 is not in [0, 1]"),
    "scores of classes": (["classes", "photos", "--min-score", "0.1"], "--min-score: is for detection, and "),
    "a table of boxes": (["boxes", "photos", "--top", "1"], "--top: is for classification, and "),
    "no device": (["classes", "photos", "--device", "tpu"], "--device: 'tpu' is not a device; use auto"),
    "a GPU too many": (["classes", "photos", "--device", "cuda:99"], "--device: cuda:99 is not available"),
    "a file in no folder": (
        ["classes", "photos", "-o", "no/table.csv"],
        "no/table.csv: --output: the folder no does not exist",
    ),
    "a folder in a file": (
        ["boxes", "photos", "-o", "notes.ckpt/found"],
        "notes.ckpt/found: --output: cannot be written: Not a directory",
    ),
    "a full folder": (["pixels", "photos", "-o", "photos"], "photos: --output: is not empty"),
}


@pytest.mark.parametrize(("argv", "message"), list(MISTAKES.values()), ids=list(MISTAKES))
def test_a_mistake_is_reported_in_one_line_before_anything_is_written(
    project: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Path("notes.ckpt").write_text("no checkpoint", encoding="utf-8")
    torch.save({"layers.0.weight": torch.zeros(2)}, "weights.pth")
    before = sorted(Path().rglob("*"))
    checkpoint = project / argv[0] if (project / argv[0]).is_dir() else Path(argv[0])
    assert message_of(capsys, checkpoint, *argv[1:]).startswith(message)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_classes", 7, "model.head.fc.weight is 10 x 64 in the file and 7 x 64 by its options"),
        ("backbone_options", NARROW | {"embed_dim": 16}, "model.patch_embed.proj.weight is 8 x "),
        ("backbone_options", NARROW | {"window_size": 4}, "model.layers.0.blocks.0.attn."),
        ("backbone", "no_such_backbone", "its options are invalid: model.backbone: "),
    ],
)
def test_weights_of_another_network_than_the_options_say_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, message: str
) -> None:
    state = torch.load(project / "classes/checkpoints/best.ckpt", weights_only=True)
    state["hyper_parameters"][key] = value
    torch.save(state, "changed.ckpt")
    line = message_of(capsys, "changed.ckpt", "photos")
    assert line.startswith("changed.ckpt: its ")
    assert message in line


def test_help_names_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        predict("--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "CHECKPOINT IMAGES" in printed
    assert "--top K" in printed
    assert "--config" not in printed


def test_a_detectors_objects_are_drawn_from_the_score_that_is_asked_for(project: Path) -> None:
    drawn = {}
    for score in (0, 1):
        folder = Path(f"from{score}")
        assert predict(project / "boxes", "photos/b.png", "--min-score", score, "--output", folder) == 0
        drawn[score] = np.asarray(load_image(next(folder.rglob("b.png"))))
    assert json.loads(Path("from0/predictions.json").read_text()) == json.loads(
        Path("from1/predictions.json").read_text()
    )
    high, wide = Image.open("photos/b.png").size[::-1]
    factor = -(-320 // max(high, wide))
    assert (drawn[0][: factor * high] != drawn[1][: factor * high]).any()


def test_how_many_objects_are_not_drawn_is_printed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(project / "boxes", "photos", "--min-score", 1, "--output", "found") == 0
    results = json.loads(Path("found/predictions.json").read_text(encoding="utf-8"))
    message = (
        f"; {len(results)} of {len(results)} objects are not drawn: their score is below 1 (--min-score; "
    )
    assert message in capsys.readouterr().err
    assert predict(project / "boxes", "photos", "--min-score", 0, "--output", "all") == 0
    assert "not drawn" not in capsys.readouterr().err


@pytest.mark.parametrize("task", ["boxes", "pixels"])
def test_images_of_one_name_in_several_folders_are_kept_apart(project: Path, task: str) -> None:
    shutil.rmtree("photos")
    for folder in ("photos/x.1", "photos/\u00fc/y"):
        save_pictures(Path(folder), "a.b.jpg", "a.b.png", "c.jpg")
    # the same folder by its whole path, too: an image is predicted once
    with pytest.warns(UserWarning, match="output files go into folders"):
        assert predict(project / task, "photos", Path("photos").resolve(), "--output", "found") == 0
    names = ["a.b.jpg.png", "a.b.png.png", "c.png"]
    expected = sorted(f"{folder}/{name}" for folder in ("x.1", "\u00fc/y") for name in names)
    for kind in ("pictures", "masks") if task == "pixels" else ("pictures",):
        root = Path("found") / kind
        assert sorted(str(file.relative_to(root)) for file in root.rglob("*.png")) == expected
    if task == "boxes":
        results = json.loads(Path("found/predictions.json").read_text(encoding="utf-8"))
        assert {"x.1/a.b.jpg", "\u00fc/y/c.jpg"} <= {entry["file_name"] for entry in results}
        return
    Path("classes.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    places = {"val_images": "photos/\u00fc/y", "val_masks": "found/masks/\u00fc/y"}
    data = SegmentationFolder(".", **places, image_size=32, num_workers=0, batch_size=1)
    data.setup("validate")
    assert [one.mask and one.mask.name for one in data.masked_images("val")] == names


def test_what_a_pattern_matches_and_is_not_read_is_named(project: Path) -> None:
    for name in ("photos/Thumbs.db", "photos/x.heic", "__MACOSX/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"junk")
    message = (
        r"photos/\*: not read: 1 \.heic files \(photos/x\.heic\), 1 folders .*, 1 hidden or system files"
    )
    with pytest.warns(UserWarning, match=message):
        found = find_images(["photos/*"])
    assert [file.name for file in found] == ["a.jpg", "b.png", "damaged.png"]
    with pytest.warns(UserWarning, match="1 hidden or system files .__MACOSX/x.png"):
        assert find_images(["**/[7x].png"]) == [Path("photos/more/7.png")]
    with pytest.raises(UserError, match=r"matches no image .*; found 1 \.heic files"):
        find_images(["photos/*.heic"])
    Path("empty.png").touch()
    with pytest.raises(UserError, match=r"empty\.png: cannot be decoded as an image \(it is empty\)"):
        load_image("empty.png")
    with pytest.raises(UserError, match=r"x\.heic: .*\(it is not an image of a known format\)"):
        load_image("photos/x.heic")
