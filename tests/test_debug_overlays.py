"""What is laid over an experiment to look into it: it fits over all of them, and does what it says."""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from support import ROOT
from torch import Tensor

from focal_lab import cli
from focal_lab.training.lightning_cli import check_config

DEBUG = ROOT / "experiments/debug"
DIGITS = ROOT / "experiments/digits/classification.yaml"
EXPERIMENTS = [
    path
    for path in sorted(ROOT.glob("experiments/*/*.yaml"))
    if re.search(r"^model:\n  class_path", path.read_text(encoding="utf-8"), re.M)
]
SMALL = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    *("--data.num_train_images=256", "--data.num_val_images=32", "--data.batch_size=32"),
    *("--model.backbone_options.embed_dim=8", "--model.backbone_options.depths=[1,1,1,1]"),
]
CSV_FILES = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=."]
FAST = ["--trainer.max_epochs=50", "--model.lr=0.01"]  # a narrow network learns slowly


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder; one thread, because small networks are no faster with more."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fit(overlay: str, *options: str) -> int:
    files = ["--config", str(DIGITS), "--config", str(DEBUG / f"{overlay}.yaml")]
    return cli.main(["fit", *files, *SMALL, *options])


def logged(name: str) -> list[float]:
    """A curve of the training in this folder."""
    (path,) = Path().glob("lightning_logs/version_0/metrics.csv")
    with open(path, newline="", encoding="utf-8") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row[name]]


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_overlays_fit_over_every_experiment(path: Path) -> None:
    config = load(path)
    trainer = config["trainer"]
    for name in ("limits", "profiler", "anomaly"):
        overlay = load(DEBUG / f"{name}.yaml")
        assert set(overlay) == {"trainer"}  # the schedule and the model stay what they are
        trainer = trainer | overlay["trainer"]
    checked = check_config(config | {"trainer": trainer})
    assert checked["trainer"]["max_epochs"] == config["trainer"]["max_epochs"]
    if config["model"]["class_path"].endswith(".Classification"):
        overlay = load(DEBUG / "overfit_batches.yaml")
        init_args = config["model"]["init_args"] | overlay["model"]["init_args"]
        model = {"class_path": config["model"]["class_path"], "init_args": init_args}
        check_config(config | {"model": model, "trainer": trainer | overlay["trainer"]})


def test_a_batch_is_learned_by_heart_in_few_steps() -> None:
    assert fit("overfit_batches", *CSV_FILES, *FAST) == 0
    losses = logged("train/loss")
    assert len(losses) == 50
    assert losses[0] > 1.5  # chance is ln 10 = 2.3
    assert losses[-1] < 0.05


def test_labels_that_change_are_not_learned_by_heart() -> None:
    """So that the test above says something: with mixup on, the loss stays far above 0."""
    assert fit("overfit_batches", *CSV_FILES, *FAST, "--model.mixup=0.8") == 0
    assert logged("train/loss")[-1] > 0.2


def test_limits_go_through_validation_checkpoints_and_logs() -> None:
    assert fit("limits", *CSV_FILES) == 0
    assert len(logged("train/loss")) == 8
    assert len(logged("val/top1")) == 2
    assert sorted(path.name for path in Path().rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_the_profiler_tells_where_the_time_goes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert fit("profiler") == 0
    assert "run_training_batch" in caplog.text


class FailInBackward(Callback):
    """A gradient that is not a number, of a loss that is one."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        loss.register_hook(lambda gradient: gradient * math.nan)


def test_anomaly_detection_names_the_operation(capsys: pytest.CaptureFixture[str]) -> None:
    callback = f"--trainer.callbacks+={FailInBackward.__module__}.FailInBackward"
    assert fit("anomaly", callback) == 1
    assert re.search(r"Function '\w+Backward0' returned nan values", capsys.readouterr().err)
