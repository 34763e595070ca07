"""`focal-lab export --to timm`: a folder that timm itself loads, from the disk and as from the hub."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from support.trained_run import BLOCK, FOCAL, NARROW, train

from focal_lab import cli
from focal_lab.tasks.features import Features
from focal_lab.tools.trained.load import open_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trainings of focal and other backbones."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "classes", "Classification", FOCAL, BLOCK, ema_decay=0.9)
    train(folder / "resnet", "Classification", "test_resnet")
    train(folder / "boxes", "Detection", FOCAL, NARROW | {"img_size": 64})
    train(folder / "pixels", "Segmentation", "test_convnext")
    return folder


def export(*argv: object) -> int:
    return cli.main(["export", *map(str, argv), "--to", "timm"])


def config_of(folder: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    return config


def noise(size: int = 28) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["classes", "resnet"])
def test_timm_loads_a_classification_with_its_classes_and_preprocessing(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert export(project / name) == 0
    printed = capsys.readouterr().out
    assert "on noise: 0.0e+00" in printed
    assert "on 4 validation images: 0.0e+00" in printed
    model = timm.create_model(f"local-dir:{name}-timm", pretrained=True).eval()
    module = open_trained(str(project / name), Path("runs")).module
    with torch.no_grad():
        assert model(noise()).equal(module(noise()))
    assert model.pretrained_cfg["label_names"] == [str(digit) for digit in range(10)]
    shown = timm.data.resolve_model_data_config(model)
    assert (tuple(shown["input_size"]), shown["crop_pct"]) == ((3, 28, 28), 1.0)
    assert (tuple(shown["mean"]), tuple(shown["std"])) == ((0.164,) * 3, (0.307,) * 3)
    assert sorted(path.name for path in Path(f"{name}-timm").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_timm_loads_it_as_from_the_hub(project: Path) -> None:
    """hf-hub: reads a cache laid out as the hub's client lays it out, with the network switched off."""
    assert export(project / "classes") == 0
    snapshot = Path("cache/models--someone--digits/snapshots/0123")
    snapshot.parent.mkdir(parents=True)
    Path("classes-timm").rename(snapshot)
    Path("cache/models--someone--digits/refs").mkdir()
    Path("cache/models--someone--digits/refs/main").write_text("0123")
    script = """
        import focal_lab, timm, torch
        model = timm.create_model("hf-hub:someone/digits", pretrained=True, cache_dir="cache").eval()
        images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
        torch.save(model(images).detach(), "logits.pt")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": "home", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    module = open_trained(str(project / "classes"), Path("runs")).module
    with torch.no_grad():
        torch.testing.assert_close(torch.load("logits.pt", weights_only=True), module(noise()))


def test_a_head_of_other_classes_is_new_and_the_rest_is_kept(project: Path) -> None:
    assert export(project / "classes") == 0
    model = timm.create_model("local-dir:classes-timm", pretrained=True, num_classes=3)
    weights = load_file("classes-timm/model.safetensors")
    state = model.state_dict()
    assert state["head.fc.weight"].shape == (3, 8)
    assert all(state[key].equal(value) for key, value in weights.items() if not key.startswith("head."))


@pytest.mark.parametrize("name", ["boxes", "pixels"])
def test_of_the_other_tasks_timm_gets_the_backbone(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert export(project / name) == 0
    printed = capsys.readouterr().out
    assert "the backbone alone, without the norms of its maps and the heads" in printed
    model = timm.create_model(f"local-dir:{name}-timm", pretrained=True, features_only=True).eval()
    module = open_trained(str(project / name), Path("runs")).module
    features = next(part for part in module.modules() if isinstance(part, Features))
    features.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in features.norms)
    features.extent.update([(64, 64)], (64, 64))
    with torch.no_grad():
        expected = features(noise(64))
        found = model(noise(64))[-len(expected) :]
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, ours)
    assert config_of(f"{name}-timm")["num_classes"] == 0
    assert "label_names" not in config_of(f"{name}-timm")


def test_the_average_is_exported_when_asked_for(project: Path) -> None:
    for weights in ("raw", "ema"):
        assert export(project / "classes", "--weights", weights, "--output", weights) == 0
    state = torch.load(project / "classes/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    found = {name: load_file(f"{name}/model.safetensors")["head.fc.weight"] for name in ("raw", "ema")}
    assert found["raw"].equal(state["model.head.fc.weight"])
    assert found["ema"].equal(state["ema.module.head.fc.weight"])
    assert not found["ema"].equal(found["raw"])


def test_the_card_has_training_results_classes_and_usage(project: Path) -> None:
    result = {"metrics": {"top1": 12.5, "ema_top1": 25.0}}
    (project / "classes/result.json").write_text(json.dumps(result), encoding="utf-8")
    cards = {}
    for weights in ("raw", "ema"):
        argv = ["--weights", weights, "--output", weights, "--license", "cc-by-4.0"]
        assert export(project / "classes", *argv) == 0
        cards[weights] = Path(weights, "README.md").read_text(encoding="utf-8")
    (project / "classes/result.json").unlink()
    card = cards["raw"]
    head = card.split("---\n")[1]
    assert "library_name: timm" in head
    assert "license: cc-by-4.0" in head
    assert "import focal_lab  # registers the architecture" in card
    assert "DigitsClassification" in card
    assert "- test top1: 12.5\n" in card
    assert "- val/top1 when it was saved: " in card
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in card
    assert "- test top1: 25\n" in cards["ema"]
    assert "val/top1" not in cards["ema"]
    code = card.split("```python\n")[1].split("```")[0].replace("PATH", "raw")
    names: dict[str, Any] = {}
    exec(code, names)  # what the card says works
    assert names["model"].num_classes == 10


def test_a_card_of_another_backbone_needs_no_import_and_has_no_license(project: Path) -> None:
    assert export(project / "resnet") == 0
    card = Path("resnet-timm/README.md").read_text(encoding="utf-8")
    assert "license: unknown" in card
    assert "import focal_lab" not in card
    assert "license" not in config_of("resnet-timm")["pretrained_cfg"]


def test_a_folder_is_overwritten_only_when_asked_and_only_if_it_is_an_export(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(project / "classes", "--output", "out") == 0
    assert export(project / "classes", "--output", "out") == cli.USER_ERROR
    assert "out: --output: exists (overwrite it with --force)" in capsys.readouterr().err
    assert export(project / "classes", "--output", "out", "--force") == 0
    Path("out/notes.txt").touch()
    assert export(project / "classes", "--output", "out", "--force") == cli.USER_ERROR
    assert "holds other files, too" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["out"]
