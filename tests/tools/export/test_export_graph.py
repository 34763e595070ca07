"""`focal-lab export --to onnx|torch_export`: graphs that other programs run, held against the module."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from support.trained_run import BLOCK, FOCAL, export, noise, train

from focal_lab import cli
from focal_lab.tools.trained.load import open_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two trainings."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "focal", "Classification", FOCAL, BLOCK)
    train(folder / "resnet", "Classification", "test_resnet")
    return folder


def test_onnxruntime_computes_a_classification_on_any_batch_and_reads_the_metadata(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(project / "resnet", "--to", "onnx", "--opset", 20) == 0
    printed = capsys.readouterr().out
    assert "pictures (B, 3, 28, 28), normalized" in printed
    assert "on 4 validation images: " in printed
    assert [path.name for path in Path().iterdir()] == ["resnet.onnx"]
    session = onnxruntime.InferenceSession("resnet.onnx", providers=["CPUExecutionProvider"])
    module = open_trained(str(project / "resnet"), Path("runs")).module
    for count in (1, 5):
        (found,) = session.run(["logits"], {"pictures": noise(count, 28).numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), module(noise(count, 28)), rtol=0, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(metadata["mean"]) == [0.164] * 3
    assert json.loads(metadata["input_size"]) == [3, 28, 28]
    assert (metadata["task"], metadata["weights"], metadata["batch"]) == ("classification", "raw", "any")
    assert onnx.load("resnet.onnx").opset_import[0].version == 20


def test_torch_alone_runs_a_focal_network(project: Path) -> None:
    """Neither focal_lab nor timm is imported where the file is read."""
    assert export(project / "focal", "--to", "torch_export") == 0
    script = """
        import json, sys, torch
        metadata = {"focal_lab.json": ""}
        network = torch.export.load("focal.pt2", extra_files=metadata).module()
        images = torch.load("images.pt", weights_only=True)
        torch.save([network(part) for part in images], "logits.pt")
        assert json.loads(metadata["focal_lab.json"])["backbone"] == "focal_micro_patch2_window7_28"
        assert not {"focal_lab", "timm", "lightning"} & set(sys.modules)
    """
    images = [noise(1, 28), noise(3, 28)]
    torch.save(images, "images.pt")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    module = open_trained(str(project / "focal"), Path("runs")).module
    for found, part in zip(torch.load("logits.pt", weights_only=True), images, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found, module(part), rtol=0, atol=1e-5)


def test_what_differs_from_the_module_is_not_written(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of slightly other weights."""
    from focal_lab.tools.export import graph as export_graph

    record = export_graph.record

    def record_then_change(made: export_graph.Portable, *more: object) -> torch.export.ExportedProgram:
        program = record(made, *more)  # type: ignore[arg-type]
        name, value = next(iter(program.state_dict.items()))
        program.state_dict[name] = torch.nn.Parameter(value * 1.01)
        return program

    monkeypatch.setattr(export_graph, "record", record_then_change)
    torch.save({}, "old.pt2")
    before = Path("old.pt2").read_bytes()
    argv = ["--to", "torch_export", "--output", "old.pt2", "--force"]
    assert export(project / "resnet", *argv) == cli.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("focal-lab: --to: differs from the module on noise: ")
    assert Path("old.pt2").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["old.pt2"]
