"""Mistakes with `focal-lab export` are reported in one line, and nothing is left behind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.trained_run import train

from focal_lab import cli
from focal_lab.errors import UserError
from focal_lab.tools.export.verify import verify
from focal_lab.tools.export.wrapper import Portable


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "classes", "Classification", "test_resnet")
    train(folder / "pixels", "Segmentation", "test_resnet")
    return folder


ONNX, TIMM = ["--to", "onnx"], ["--to", "timm"]
MISTAKES = {
    "no such checkpoint": (["missing.ckpt", *ONNX], "missing.ckpt: there is no such file or folder"),
    "no such run": (["0123abcd", *ONNX], "0123abcd: there is no such file or folder"),
    "weights alone": (
        ["weights.pth", *TIMM],
        "weights.pth: contains only weights and does not say for which task",
    ),
    "another file": (["notes.ckpt", *TIMM], "notes.ckpt: cannot be read as weights"),
    "no average": (["classes", *TIMM, "--weights", "ema"], "--weights: "),
    "half a batch": (["classes", *ONNX, "--batch", "0.5"], "--batch: '0.5' is not a batch size"),
    "no image": (["classes", *ONNX, "--batch", "0"], "--batch: '0' is not a batch size"),
    "no size": (["classes", *ONNX, "--image-size", "0", "28"], "--image-size: 0 28: use 1 or more"),
    "an odd size": (
        ["pixels", *ONNX, "--image-size", "60", "64"],
        "--image-size: 60 64 are not multiples of 32 (use 64 64)",
    ),
    "no tolerance": (["classes", *TIMM, "--tolerance", "0"], "--tolerance: 0 is not more than 0"),
    "an opset of timm": (
        ["classes", *TIMM, "--opset", "18"],
        "--opset: applies to onnx; omit it with --to timm",
    ),
    "an opset that is too old": (
        ["classes", *ONNX, "--opset", "3"],
        "--opset: torch cannot convert the graph to 3; it writes ",
    ),
    "a batch of timm": (["classes", *TIMM, "--batch", "2"], "--batch: fixes a graph's input"),
    "a card of onnx": (
        ["classes", *ONNX, "--license", "mit"],
        "--license: is for the model card of --to timm",
    ),
    "a file there": (
        ["classes", *ONNX, "-o", "notes.ckpt"],
        "notes.ckpt: --output: exists (overwrite it with",
    ),
    "a folder there": (["classes", *ONNX, "-o", "full", "--force"], "full: --output: is a folder"),
    "a file for a folder": (
        ["classes", *TIMM, "-o", "notes.ckpt", "--force"],
        "notes.ckpt: --output: is not a folder",
    ),
    "no folder": (["classes", *TIMM, "-o", "no/where"], "no/where: --output: the folder no does not exist"),
    "another's folder": (
        ["classes", *TIMM, "-o", "full", "--force"],
        "full: --output: holds other files, too",
    ),
    "another network": (
        ["changed.ckpt", *TIMM],
        "changed.ckpt: its weights do not match its own options",
    ),
}


@pytest.mark.parametrize(("argv", "message"), list(MISTAKES.values()), ids=list(MISTAKES))
def test_a_mistake_is_reported_in_one_line(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.ckpt").write_text("no checkpoint", encoding="utf-8")
    Path("full").mkdir()
    Path("full/thesis.txt").touch()
    torch.save({"layers.0.weight": torch.zeros(2)}, "weights.pth")
    state = torch.load(trained / "classes/checkpoints/best.ckpt", weights_only=True)
    state["hyper_parameters"]["num_classes"] = 11
    torch.save(state, "changed.ckpt")
    before = sorted(Path().rglob("*"))
    checkpoint = trained / argv[0] if (trained / argv[0]).is_dir() else argv[0]
    assert cli.main(["export", str(checkpoint), *argv[1:]]) == cli.USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.removeprefix("focal-lab: ").startswith(message)
    assert sorted(Path().rglob("*")) == before


def test_missing_packages_are_named_with_the_command_that_installs_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("focal_lab.tools.export.graph._NEEDED", ("onnx", "no_such_package"))
    assert cli.main(["export", str(trained / "classes"), *ONNX]) == cli.USER_ERROR
    line = capsys.readouterr().err.strip()
    assert line == "focal-lab: --to: onnx needs no_such_package (pip install 'focal-lab[export]')"


@pytest.mark.parametrize("apart", [1e-2, float("inf"), float("nan")])
def test_a_difference_beyond_rounding_is_refused(apart: float) -> None:
    network = Portable(torch.nn.Identity(), (4, 4), 3, {"logits": "the input"})
    trained: Any = SimpleNamespace(data=None)
    lines = verify(lambda images: [images + 1e-5], network, trained, None, 1e-4)
    assert [line.partition(" on ")[2].partition(":")[0] for line in lines] == [
        "noise",
        "8 random images (no validation data)",
    ]
    with pytest.raises(UserError, match="differs from the module on noise"):
        verify(lambda images: [images + apart], network, trained, None, 1e-4)
