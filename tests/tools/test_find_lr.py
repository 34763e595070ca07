"""`focal-lab find-lr`: rates as planned, a suggestion where the loss falls fastest, nothing left behind."""

import csv
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.tuner import Tuner
from support import ROOT

from focal_lab import cli
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.errors import UserError
from focal_lab.tasks.classification.task import Classification
from focal_lab.tools.find_lr import make_curve, steepest

EXPERIMENT = ROOT / "experiments/digits/classification.yaml"
TINY = ["--model.backbone_options.embed_dim=8", "--model.backbone_options.depths=[1,1,1,1]"]
SMALL = ["--data.num_train_images=256", "--data.batch_size=16", "--trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def find(capsys: pytest.CaptureFixture[str], *options: str, status: int = 0) -> str:
    argv = ["find-lr", "--config", str(EXPERIMENT), *TINY, *SMALL, *options]
    assert cli.main(argv) == status
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    printed = capsys.readouterr()
    return printed.err.splitlines()[-1] if status else printed.out


def rows(path: str) -> list[dict[str, float]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def test_it_suggests_a_rate_and_leaves_only_the_files_that_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = find(capsys, "--num-training=40", "--csv=curve.csv", "--png=curve.png")
    assert sorted(path.name for path in Path().iterdir()) == ["curve.csv", "curve.png"]
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    points = rows("curve.csv")
    planned = np.geomspace(1e-6, 1.0, 40).tolist()
    assert [point["lr"] for point in points] == pytest.approx(planned[: len(points)])
    suggested = float(printed.partition("--model.lr=")[2].split()[0])
    assert any(suggested == pytest.approx(rate, rel=0.05) for rate in planned[10:-1])
    assert "(the configuration has 0.003)" in printed
    assert "of 16 images" in printed


def test_a_step_has_the_images_of_all_devices_and_the_mean_of_their_losses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = find(capsys, "--num-training=21", "--max-lr=1e-5", "--trainer.devices=3", "--csv=curve.csv")
    assert "21 steps of 48 images" in printed
    assert len(rows("curve.csv")) == 21


def test_rates_are_those_of_model_lr_where_the_recipe_scales_them(capsys: pytest.CaptureFixture[str]) -> None:
    printed = find(
        capsys, "--num-training=21", "--max-lr=1e-2", "--model.total_batch_size=32", "--data.batch_size=8"
    )
    assert "of 32 images" in printed


def test_a_search_that_starts_too_high_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    printed = find(capsys, "--min-lr=1e28", "--max-lr=1e30", "--csv=curve.csv", status=2)
    assert "no loss is finite" in printed or "finite losses are too few" in printed
    assert "use a smaller --min-lr" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-lr=1", "--max-lr=0.1"], "focal-lab: --min-lr: 1.0 is not below --max-lr, 0.1"),
        (["--min-lr=0"], "focal-lab: --min-lr: 0.0 to 1.0 is not a range of positive rates"),
        (["--max-lr=nan"], "focal-lab: --min-lr: 1e-06 to nan is not a range of positive rates"),
        (["--num-training=20"], "focal-lab: --num-training: 20 steps are too few; a slope needs 21 or more"),
        (["--early-stop-threshold=0.5"], "focal-lab: --early-stop-threshold: 0.5 is neither 0 nor above 1"),
        (["--csv=nowhere/a.csv"], "focal-lab: --csv: the folder nowhere does not exist"),
    ],
)
def test_nonsense_is_refused_before_anything_is_built(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find(capsys, *options, status=2) == message


def curve(losses: list[float]) -> pd.DataFrame:
    """The losses, not smoothed."""
    return make_curve(np.geomspace(1e-6, 1.0, len(losses)), losses).assign(smoothed_loss=losses)


def test_the_suggestion_is_where_the_loss_falls_fastest_over_the_logarithm_of_the_rate() -> None:
    falling = [3 - math.tanh((i - 60) / 5) if i < 90 else 9.0 for i in range(100)]
    assert steepest(curve(falling), "it was over") == 60


def test_a_curve_without_a_fall_or_without_points_is_refused() -> None:
    with pytest.raises(UserError, match="never falls"):
        steepest(curve([float(i) for i in range(50)]), "it was over")
    with pytest.raises(UserError, match="12 finite losses are too few"):
        steepest(curve([2.0] * 12), "it was over")
    with pytest.raises(UserError, match="no loss is finite: it was over"):
        steepest(make_curve((), ()), "it was over")


def test_the_running_mean_of_a_constant_is_that_constant() -> None:
    smoothed = make_curve(range(6), [2.0] * 5 + [1.0])["smoothed_loss"]
    assert smoothed[:5].tolist() == pytest.approx([2.0] * 5)
    assert smoothed[5] == smoothed.min() > 1


def test_lightnings_own_search_fails_with_our_schedule() -> None:
    """When this passes through one day, `find_lr` can be looked at again."""
    torch.manual_seed(0)
    task = Classification(
        "focal_micro_patch2_window7_28", {"embed_dim": 8, "depths": [1, 1, 1, 1]}, num_classes=10
    )
    data = DigitsClassification(num_train_images=64, batch_size=16, num_val_images=16)
    options = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, **options)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="step_update"):
        Tuner(trainer).lr_find(task, datamodule=data, num_training=4)
