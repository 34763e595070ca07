"""`focal-lab inspect` on real runs: of every task, on files of weights, and over a sweep."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from focal_lab import cli
from focal_lab.tools.inspect.source import network_of, open_network

SMALL = {
    "trainer.max_epochs": 1,
    "classification.data.num_train_images": 64,
    "classification.data.num_val_images": 32,
    "classification.data.num_test_images": 32,
    "classification.model.warmup_epochs": 0,
    "detection.data.num_train_images": 8,
    "detection.data.num_val_images": 4,
    "detection.data.num_test_images": 4,
    "detection.model.warmup_steps": 0,
    "segmentation.data.num_train_images": 8,
    "segmentation.data.num_val_images": 4,
    "segmentation.data.num_test_images": 4,
    "segmentation.model.warmup_steps": 0,
}
TASKS = ("classification", "detection", "segmentation")
TINY = ["--model", "focal_micro", "--set", "embed_dim=8", "--set", "depths=[1, 1, 1, 1]"]


def write_sweep(folder: Path, name: str, tasks: list[str], backbones: list[str]) -> None:
    """A sweep over backbones in a project that has our experiments of digits, made small."""
    cells = {name: {"backbone": name} for name in backbones}
    content = {"seeds": 1, "tasks": tasks, "set": SMALL, "factors": {"backbone": cells}}
    content["set"] = {key: value for key, value in SMALL.items() if key.split(".")[0] in (*tasks, "trainer")}
    (folder / "sweeps").mkdir(exist_ok=True)
    (folder / f"sweeps/{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of each task, and one with another backbone."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(Path(cli.__file__).parent.parent / "experiments", folder / "experiments")
    write_sweep(folder, "chain", list(TASKS), ["focal_micro"])
    write_sweep(folder, "small", ["classification"], ["focal_micro", "focal_swin_micro", "test_resnet"])
    for name in ("chain", "small"):
        command = [sys.executable, "-m", "focal_lab.cli", "sweep", f"sweeps/{name}.yaml"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as working folder, without the output of other tests."""
    shutil.rmtree(finished / "runs/inspect", ignore_errors=True)
    monkeypatch.chdir(finished)
    return finished


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image file of 40 x 30 px."""
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run_of(task: str, backbone: str = "focal_micro") -> str:
    """The ID of the finished run of a task."""
    for path in Path("runs").glob("*/result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["task"] == task and result["config"]["model"]["init_args"]["backbone"].startswith(backbone):
            return path.parent.name
    raise AssertionError(task)


def inspect(*argv: str) -> int:
    return cli.main(["inspect", *argv])


def inspected(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    """What `--json` prints."""
    assert inspect(*argv, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def error_line(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a mistake prints."""
    assert inspect(*argv) == cli.USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("focal-lab: ")


@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_every_task_is_inspected_by_its_id(
    project: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    run = run_of(task)
    record = inspected(capsys, run[:6], "--num-images", "3")
    folder = project / "runs/inspect" / run
    assert record == json.loads((folder / "inspect.json").read_text(encoding="utf-8"))
    assert (record["run"], record["task"], record["pictures_averaged"]) == (run, task, 3)
    assert record["relative_error"] < 1e-5
    assert len(record["blocks"]) == 8
    for block in record["blocks"]:
        assert sum(block["shares"].values()) == pytest.approx(1, abs=1e-5)
        assert all(0 <= share <= 1 for share in block["shares"].values())
        assert 0 <= block["off_picture"] <= 1
    assert [len(block["shares_by_head"]["window"]) for block in record["blocks"]] == [1, 1, 2, 2, 4, 4, 8, 8]
    (query,) = record["queries"]
    assert [block["block"] for block in query["blocks"]] == [1, 3, 5, 7]
    for block in query["blocks"]:
        assert sum(level["share"] for level in block["levels"].values()) == pytest.approx(1, abs=1e-5)
    names = [picture["file"] for picture in record["pictures"]]
    assert names == [
        "attention-0.png",
        "shares.png",
        "biases-1.png",
        "biases-window.png",
        "receptive-field.png",
    ]
    for name in names:
        with Image.open(folder / name) as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 16) or range(99)) > 5
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "inspect.json"])


def test_the_same_is_found_every_time(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("classification")
    first = inspected(capsys, run, "--output", "first", "--num-images", "2")
    again = inspected(capsys, f"runs/{run}/checkpoints/best.ckpt", "--output", "again", "--num-images", "2")
    assert first == again
    assert inspect(run, "--output", "again", "--pictures", "2", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == first
    assert "--pictures is now called --num-images" in captured.err
    for picture in first["pictures"]:
        name = picture["file"]
        assert Path("first", name).read_bytes() == Path("again", name).read_bytes()


def test_query_blocks_and_head_can_be_chosen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [run_of("classification"), "--num-images", "1", "--query", "3,20", "--block", "7,0"]
    record = inspected(capsys, *argv)
    (query,) = record["queries"]
    assert query["pixel"] == [3, 20]
    assert [(block["block"], block["token"]) for block in query["blocks"]] == [(7, [1, 0]), (0, [10, 1])]
    by_head = [inspected(capsys, *argv[:-1], "7", "--head", str(head)) for head in range(8)]
    shares = [found["queries"][0]["blocks"][0]["levels"]["window"]["share"] for found in by_head]
    assert np.mean(shares) == pytest.approx(query["blocks"][0]["levels"]["window"]["share"], abs=1e-6)
    assert len({round(share, 6) for share in shares}) == 8


def test_what_is_printed_has_a_line_a_block_and_names_the_files(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("classification")
    assert inspect(run, "--num-images", "2") == 0
    printed = capsys.readouterr().out
    assert f"focal_micro_patch2_window7_28, runs/{run}/checkpoints/best.ckpt" in printed
    assert [line.split()[0] for line in printed.splitlines() if line[:5].strip().isdecimal()] == list(
        "01234567"
    )
    assert f"runs/inspect/{run}/shares.png" in printed


@pytest.mark.parametrize("task", TASKS)
def test_image_files_get_the_preprocessing_of_the_run(
    project: Path, capsys: pytest.CaptureFixture[str], photo: Path, task: str
) -> None:
    record = inspected(capsys, run_of(task), str(photo), str(photo))
    assert [query["picture"] for query in record["queries"]] == ["photo.png"] * 2
    assert record["pictures_averaged"] == 2
    # as `predict` shows them: of detection and segmentation of their own size, which the task may change
    size = [28, 28] if task == "classification" else [30, 40]
    assert record["queries"][0]["size"] == size


def test_a_model_without_weights_and_one_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    as_it_begins = inspected(capsys, *TINY, str(photo))
    assert (as_it_begins["checkpoint"], as_it_begins["model"]) == (None, "focal_micro_patch2_window7_28")
    assert as_it_begins["options"] == {"embed_dim": 8, "depths": [1, 1, 1, 1]}
    trained = open_network(None, Path("runs"), "focal_micro", {"embed_dim": 8, "depths": [1, 1, 1, 1]})
    torch.save(network_of(trained).state_dict(), "weights.pth")
    loaded = inspected(capsys, *TINY, "weights.pth", str(photo))
    assert loaded["checkpoint"] == "weights.pth"
    assert loaded["blocks"] == as_it_begins["blocks"]


def test_the_papers_shares_stand_beside_a_network_of_its_depths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--model", "focal_micro", "--set", "embed_dim=8", "--set", "depths=[2, 2, 6, 2]", str(photo)]
    paper = inspected(capsys, *small)["published_shares"]
    assert [len(shares) for shares in paper.values()] == [12, 12, 12]
    assert paper["window"][0] == pytest.approx(0.479, abs=0.001)
    assert inspect(*small) == 0
    assert "paper" in capsys.readouterr().out
    assert inspected(capsys, *TINY, str(photo))["published_shares"] is None


def test_diverged_weights_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = open_network(None, Path("runs"), "focal_micro", {"embed_dim": 8, "depths": [1, 1, 1, 1]})
    state = network_of(trained).state_dict()
    state["layers.1.blocks.0.attn.qkv.bias"].fill_(1e30)
    torch.save(state, "weights.pth")
    line = error_line(capsys, *TINY, "weights.pth", str(photo))
    assert line == "weights.pth: block 1 outputs NaN or infinity; the run diverged, or the file is damaged"


def test_a_sweep_is_inspected_cell_by_cell_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect("--sweep", "small", "--num-images", "2") == 1
    first = capsys.readouterr()
    assert "test_resnet: " in first.err
    assert "only focal backbones can be inspected" in first.err
    runs = {run_of("classification", name) for name in ("focal_micro", "focal_swin_micro")}
    assert {path.name for path in Path("runs/inspect").iterdir()} == runs
    written = {path: path.stat().st_mtime_ns for path in Path("runs/inspect").rglob("*.png")}
    assert inspect("--sweep", "small", "--num-images", "2") == 1
    assert capsys.readouterr().out.count("(inspected before)") == 2
    assert written == {path: path.stat().st_mtime_ns for path in Path("runs/inspect").rglob("*.png")}
    assert inspect("--sweep", "small", "--num-images", "2", "--force") == 1
    assert "(inspected before)" not in capsys.readouterr().out
    assert inspect("--sweep", "small", "--num-images", "3", "--json") == 1
    records = json.loads(capsys.readouterr().out)
    assert [record["pictures_averaged"] for record in records] == [3, 3]
    for record in records:
        for picture in record["pictures"]:
            assert Path("runs/inspect", record["run"], picture["file"]).is_file()


def test_the_sweeps_page_shows_what_was_inspected(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["report", "small", "--format", "html", "--output", "page.html"]
    assert cli.main(argv) == 0
    before = Path("page.html").read_text(encoding="utf-8")
    assert inspect("--sweep", "small", "--num-images", "2") == 1
    assert cli.main(argv) == 0
    after = Path("page.html").read_text(encoding="utf-8")
    captions = (
        "What the query at pixel",
        "Attention to each level per block",
        "Learned position biases of pooled level 1",
        "Receptive field of a query against the tokens",
    )
    for caption in captions:
        assert caption not in before
        assert caption in after
    pictures = sum(len(list(folder.glob("*.png"))) for folder in Path("runs/inspect").iterdir())
    assert after.count("data:image/") == before.count("data:image/") + pictures


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "CHECKPOINT: name a checkpoint, a run, or a sweep with --sweep"),
        (["cat.jpg"], "cat.jpg: is an image; name the checkpoint first, or a model with --model"),
        (["missing.ckpt"], "missing.ckpt: there is no such file or folder"),
        (["0123abcd"], "0123abcd: there is no such file or folder"),
        (["notes.ckpt"], "notes.ckpt: "),
        (
            ["weights.pth"],
            "weights.pth: contains only weights: add the network, such as --model focal_tiny",
        ),
        (["--model", "resnet18", "cat.jpg"], "cat.jpg: there is no such image"),
        (["--model", "resnet18"], "--model: 'resnet18' is not a focal backbone"),
        ([*TINY, "--set", "depths=3"], "--set: "),
        (["--set", "depths=3", "x.ckpt"], "--set: sets options of a --model; a checkpoint has its own"),
        (["x.ckpt", "--query", "14"], "--query: '14' is not a pixel; use X,Y, such as 14,14"),
        (["x.ckpt", "--query=-1,3"], "--query: '-1,3' is not a pixel; use X,Y, such as 14,14"),
        (["x.ckpt", "--block", "a"], "--block: 'a' is not a list of blocks; use 0, or 1,3,7"),
        (["x.ckpt", "--num-images", "0"], "--num-images: 0 is too few; use 1 or more"),
        (["x.ckpt", "PHOTO", "--num-images", "3"], "--num-images: is about validation data"),
        (["x.ckpt", "--suite", "digits"], "--suite: selects runs of a sweep: add --sweep SWEEP"),
        (["x.ckpt", "--force"], "--force: goes with --sweep; a single network is always inspected again"),
        (["x.ckpt", "--sweep", "s"], "CHECKPOINT: does not go with --sweep, which inspects its own runs"),
        (["--sweep", "s", "--output", "o"], "--output: does not go with --sweep"),
        (["--sweep", "s"], "--out: runs does not exist"),
        ([*TINY, "PHOTO", "--block", "4"], "--block: there is no block 4; the network has 4 (use 0 to 3)"),
        (
            [*TINY, "PHOTO", "--block", "3", "--head", "8"],
            "--head: block 3 has no head 8; it has 8 (use 0 to 7",
        ),
        ([*TINY, "PHOTO", "--head", "1"], "--head: block 0 has no head 1; it has 1 (use 0 to 0, or --block)"),
        (
            [*TINY, "PHOTO", "--query", "28,3"],
            "--query: 28,3 is outside the image photo.png, which is 28 x 28",
        ),
        ([*TINY, "PHOTO", "--output", "taken"], "--output: taken is not a folder"),
        ([*TINY, "damaged.png"], "damaged.png: "),
        ([*TINY], "focal_micro_patch2_window7_28: has no data of its own; name images to inspect"),
    ],
)
def test_a_mistake_is_reported_in_one_line_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.ckpt").write_text("no checkpoint", encoding="utf-8")
    Path("damaged.png").write_bytes(photo.read_bytes()[:200])
    Path("taken").touch()
    torch.save({"layers.0.weight": torch.zeros(2)}, "weights.pth")
    before = sorted(tmp_path.rglob("*"))
    line = error_line(capsys, *[str(photo) if name == "PHOTO" else name for name in argv])
    assert line.startswith(message)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_without_a_finished_run_prints_the_command_for_one(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(capsys, "--sweep", "small", "--out", str(tmp_path))
    assert line == (
        f"--sweep: small: none of its 3 cells has a finished run in {tmp_path} "
        f"(focal-lab sweep sweeps/small.yaml --out {tmp_path})"
    )


def test_other_backbones_and_runs_without_checkpoint_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("classification", "test_resnet")
    assert "its backbone is test_resnet; only focal backbones can be inspected" in error_line(capsys, run)
    folder = Path("runs", run, "checkpoints")
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        assert f"runs/{run}: has no checkpoints/best.ckpt or last.ckpt" in error_line(capsys, f"runs/{run}")
    finally:
        hidden.rename(folder)
