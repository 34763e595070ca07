import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from support.tiny_task import tiny_config, write_config

from focal_lab import cli
from focal_lab.errors import UserError
from focal_lab.training.checkpoints.io import PeriodicCheckpoint, checkpoint_bytes, checkpoints_kept
from focal_lab.training.fit import build, train

Usage = namedtuple("Usage", "total used free")
PERIODIC = {"class_path": "focal_lab.training.PeriodicCheckpoint", "init_args": {"every": 2}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_nth_epoch_is_kept_beside_the_best_and_the_last() -> None:
    config = tiny_config(trainer={"max_epochs": 5, "callbacks": [PERIODIC]})
    train(config, Path("run"))
    kept = ["best.ckpt", "epoch=0001.ckpt", "epoch=0003.ckpt", "last.ckpt"]
    assert names(Path("run/checkpoints")) == kept
    train(config, Path("run"), resume_from=Path("run/checkpoints/epoch=0001.ckpt"))
    assert names(Path("run/checkpoints")) == kept


@pytest.mark.parametrize("options", [{}, {"frozen": 2}, {"ema_decay": 0.9}], ids=["all", "frozen", "average"])
def test_a_checkpoints_size_is_known_before_it_is_written(options: dict[str, Any]) -> None:
    config = tiny_config(options={"embed_dim": 32}, **options)
    expected = checkpoint_bytes(build(config, Path("other")).model)
    train(config, Path("run"))
    assert (Path("run") / "checkpoints/last.ckpt").stat().st_size == pytest.approx(expected, rel=0.2)


def test_the_checkpoints_that_will_lie_there_are_counted() -> None:
    def count(**trainer: Any) -> int:
        return checkpoints_kept(build(tiny_config(trainer=trainer), Path("run")).trainer)

    assert count() == 2
    assert count(max_epochs=5, callbacks=[PERIODIC]) == 2 + 3
    assert count(enable_checkpointing=False) == 0


def test_a_disk_without_room_is_reported_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(Path("tiny.yaml"), tiny_config())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 2**40 - 2**20, 2**20))
    assert cli.main(["fit", "--config", str(path)]) == cli.USER_ERROR
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("focal-lab: trainer.default_root_dir: 3 checkpoints of 1 MiB need 67 MiB, ")
    assert line.endswith("has 1 MiB left (free some space, or choose another folder)")
    assert not list(Path().rglob("*.ckpt"))


def test_every_zeroth_epoch_is_refused() -> None:
    with pytest.raises(UserError, match=r"^trainer.callbacks.every: 0 is not 1 or more"):
        PeriodicCheckpoint(0)
