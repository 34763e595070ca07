import shutil
from pathlib import Path

import pytest
import torch
from support.tiny_task import OPTIONS, read_checkpoint, tiny_config, write_config

from focal_lab import cli
from focal_lab.training.checkpoints.read import (
    check_same_network,
    checkpoint_progress,
    last_checkpoint,
    misfit,
)

FIT = ["fit", "--config", "tiny.yaml"]
FIRST = Path("lightning_logs/version_0/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `focal-lab fit` has trained the tiny experiment for an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    path = write_config(folder / "tiny.yaml", tiny_config(trainer={"max_epochs": 1}))
    assert cli.main(["fit", "--config", str(path), f"--trainer.default_root_dir={folder}"]) == 0
    return folder


@pytest.fixture
def trained(written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of it, to work in."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reported(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(list(argv)) == cli.USER_ERROR
    return capsys.readouterr().err.splitlines()[-1].removeprefix("focal-lab: ")


def test_last_goes_on_from_the_newest_training_of_the_folder(trained: Path) -> None:
    assert cli.main([*FIT, "--ckpt_path=last", "--trainer.max_epochs=3"]) == 0
    newest = Path("lightning_logs/version_1/checkpoints/last.ckpt")
    assert read_checkpoint(newest)["epoch"] == 2
    assert last_checkpoint(Path()) == newest


def test_without_a_checkpoint_last_begins_from_scratch() -> None:
    write_config(Path("tiny.yaml"), tiny_config())
    assert cli.main([*FIT, "--ckpt_path=last", "--trainer.max_epochs=1"]) == 0
    assert checkpoint_progress(FIRST) == (2, 1)


def test_runs_of_a_sweep_are_other_trainings(trained: Path) -> None:
    run = Path("runs/064205474a4d/checkpoints/last.ckpt")
    run.parent.mkdir(parents=True)
    shutil.copy(FIRST, run)
    assert last_checkpoint(Path()) == FIRST
    assert last_checkpoint(run.parents[1]) == run


def test_a_damaged_file_is_not_the_last_checkpoint(trained: Path) -> None:
    newer = Path("lightning_logs/version_1/checkpoints/last.ckpt")
    newer.parent.mkdir(parents=True)
    newer.write_bytes(FIRST.read_bytes()[:1000])
    assert last_checkpoint(Path()) == FIRST


@pytest.mark.parametrize(
    ("option", "name", "values"),
    [
        ("--model.num_classes=12", "num_classes", "10, and the configuration says 12"),
        (
            "--model.backbone=test_vit",
            "backbone",
            "focal_micro_patch2_window7_28, and the configuration says",
        ),
        (
            "--model.backbone_options.embed_dim=16",
            "backbone_options",
            f"{OPTIONS}, and the configuration says",
        ),
        ("--model.ema_decay=0.9", "ema_decay", "None, and the configuration says 0.9"),
    ],
)
def test_going_on_as_another_network_is_refused(
    option: str, name: str, values: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = reported(capsys, *FIT, f"--ckpt_path={FIRST}", option)
    assert line.startswith(f"--ckpt_path: {FIRST} was trained with {name} {values}")
    assert "--model.backbone_checkpoint" in line


def test_a_configuration_file_counts_like_the_command_line(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(Path("tiny.yaml"), tiny_config(options={"depths": [1, 1, 2, 1]}))
    assert "was trained with backbone_options" in reported(capsys, *FIT, f"--ckpt_path={FIRST}")


def test_other_learning_rates_are_no_other_network() -> None:
    check_same_network({"lr": 1.0, "backbone_options": {}}, {"lr": 2.0, "backbone_options": None}, "x.ckpt")


def test_what_does_not_fit_is_reported_by_its_first_names() -> None:
    small, large = torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(2, 3))
    with pytest.raises(RuntimeError) as error:
        large.load_state_dict(small.state_dict())
    assert misfit(error.value) == "does not fit the model: lacks 0.weight, 0.bias; has also weight, bias"
    with pytest.raises(RuntimeError) as error:
        torch.nn.Linear(2, 5).load_state_dict(small.state_dict())
    assert misfit(error.value).startswith(
        "does not fit the model: weight has the shape [3, 2] there and [5, 2] here; bias has the shape [3]"
    )
