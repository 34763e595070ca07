"""`focal-lab fit --dry_run` on small experiments of every task; it leaves no files."""

import re
import tempfile
from pathlib import Path

import pytest
import torch
from support import ROOT
from torch.utils.data import DataLoader

from focal_lab import cli
from focal_lab.errors import UserError
from focal_lab.sweep.worker import measure_steps as measure_child
from focal_lab.tools.dry_run.rehearsal import configured_devices
from focal_lab.tools.dry_run.watch import describe, loader_seconds

DIGITS = ROOT / "experiments/digits"
TINY = ["--model.backbone_options.embed_dim=8", "--model.backbone_options.depths=[1,1,1,1]"]
CPU = ["--trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with another one for temporary files; a few steps are enough."""
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(measure_child, "_SECONDS", 0.1)


def dry_run(
    capsys: pytest.CaptureFixture[str], *options: str, task: str = "classification", status: int = 0
) -> dict[str, str]:
    """The table's rows; checks that nothing was left on the disk."""
    pictures = 256 if task == "classification" else 16
    sizes = [f"--data.num_train_images={pictures}", "--data.num_val_images=16"]
    argv = ["fit", "--config", str(DIGITS / f"{task}.yaml"), *sizes, *TINY, *CPU, *options, "--dry_run"]
    assert cli.main(argv) == status
    assert list(Path().iterdir()) == []
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    output = capsys.readouterr()
    rows = [re.split(r"  +", line, maxsplit=1) for line in output.out.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2} | {"all": output.out, "error": output.err}


def test_a_classification_is_summarized(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys)
    assert printed["data"] == "256 images, 10 classes, 4 batches an epoch"
    assert (printed["input"], printed["target"]) == ("64 x 3 x 28 x 28 float32", "64 int64")
    assert printed["output"] == "64 x 10 float32"
    assert printed["precision"] == "32-true"
    assert printed["optimizer step"] == "64 images"
    assert re.fullmatch(
        r"AdamW, 2 groups: [\d.]+ M with decay 0\.05, [\d.]+ M without decay", printed["optimizer"]
    )
    assert printed["learning rate"].startswith("1e-06 at first, ")
    assert "step 7 (CosineLRScheduler)" in printed["learning rate"]
    assert re.fullmatch(r".* for 2 epochs \(.*\)", printed["time in all"])
    assert printed["checkpoints"].startswith("2 x ")


def test_the_memory_is_that_of_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys)
    params = float(printed["parameters"].split()[0]) * 1e6
    weights, gradients, optimizer = (
        float(size) * {"kB": 1e3, "MB": 1e6}[unit]
        for size, unit in re.findall(r"(?:weights|gradients|optimizer) ([\d.]+) (kB|MB)", printed["memory"])
    )
    assert gradients == pytest.approx(4 * params, rel=0.05)
    assert weights >= gradients * 0.99
    assert optimizer == pytest.approx(8 * params, rel=0.1)


@pytest.mark.parametrize(
    ("task", "shown"),
    [("detection", "loss_mask"), ("segmentation", "8 x 11 x 48 x 48")],
)
def test_other_tasks_are_summarized_too(task: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "--model.warmup_steps=1", task=task)
    assert printed["input"] == "8 of 3 x 96 x 96 float32"
    assert shown in printed["all"]
    assert float(printed["GMACs"].split()[0]) > 0


def test_layer_decay_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "--model.layer_decay=0.5")
    assert re.search(r"; rates from [\d.]+ to 1 of the learning rate$", printed["optimizer"])


def test_one_device_stands_for_many(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(
        capsys, "--trainer.devices=4", "--data.batch_size=8", "--trainer.accumulate_grad_batches=2"
    )
    assert printed["data"] == "256 images, 10 classes, 8 batches an epoch on each device"
    assert printed["devices"] == "4 (cpu, ddp); dry run on one: cpu"
    assert printed["optimizer step"] == "64 images = 4 devices x 2 batches accumulated x 8 images"
    assert "step 7 " in printed["learning rate"]  # 2 epochs of 8 batches, two a step
    assert "Assumes that" in printed["all"]


def test_loggers_profilers_and_checkpoints_of_the_configuration_write_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.profiler=simple"]
    keep = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=kept"]
    top = ["--trainer.callbacks.monitor=val/top1", "--trainer.callbacks.save_top_k=3"]
    printed = dry_run(capsys, *files, *keep, *top)
    assert printed["checkpoints"].startswith("3 x ")


def test_a_nan_loss_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "--model.lr=1e30", "--model.warmup_epochs=0", status=2)
    assert re.fullmatch(
        r"focal-lab: the loss is (nan|inf) at step \d; lower model\.lr", printed["error"].splitlines()[-1]
    )


def test_what_fit_refuses_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "model.warmup_epochs" in dry_run(capsys, "--model.warmup_epochs=9", status=2)["error"]


def test_a_resumed_training_takes_the_time_of_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(DIGITS / "classification.yaml"), *TINY, *CPU]
    sizes = ["--data.num_train_images=128", "--data.num_val_images=16", "--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", *config, *sizes, f"--trainer.default_root_dir={tmp_path}/trained"]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    printed = dry_run(capsys, "--trainer.max_epochs=5", f"--ckpt_path={last}")
    assert "for 3 epochs" in printed["time in all"]
    assert "Resumes after 2 epochs, 4 steps" in printed["all"]
    refused = dry_run(capsys, f"--ckpt_path={last}", status=2)["error"]
    assert "nothing is left to train: the checkpoint has done all steps" in refused


@pytest.mark.parametrize(
    ("trainer", "count", "first"),
    [
        ({"accelerator": "cpu", "devices": 8, "num_nodes": 2}, 16, 1),
        ({"accelerator": "cpu", "devices": "auto"}, 1, 1),
        ({"accelerator": "gpu", "devices": [2, 3]}, 2, [2]),
        ({"accelerator": "gpu", "devices": "2,5,7"}, 3, [2]),
        ({"accelerator": "cpu", "devices": "4"}, 4, 1),
    ],
)
def test_devices_are_counted_as_lightning_reads_them(
    trainer: dict[str, object], count: int, first: object
) -> None:
    devices = configured_devices(trainer)
    assert (devices.count, devices.first) == (count, first)


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"devices": "many"}, {"devices": 1, "num_nodes": -1}])
def test_invalid_devices_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^trainer\.(devices|num_nodes): "):
        configured_devices(wrong)


def test_shapes_of_many_are_printed_as_ranges() -> None:
    images = [torch.zeros(3, 480, 640), torch.zeros(3, 500, 333)]
    assert describe(images) == "2 of 3 x 480-500 x 333-640 float32"
    targets = [{"boxes": torch.zeros(n, 4), "label": torch.tensor(1)} for n in (1, 3)]
    assert describe(targets) == "2 of boxes 1-3 x 4 float32; label a number, int64"
    assert describe((torch.zeros(2), {"a": torch.zeros(1)})) == "2 float32, a 1 float32"


def test_a_loader_of_one_batch_is_timed_and_what_is_no_loader_is_not() -> None:
    assert loader_seconds(DataLoader([1, 2], batch_size=2)) >= 0  # type: ignore[arg-type,operator]
    assert loader_seconds([1, 2]) is None
