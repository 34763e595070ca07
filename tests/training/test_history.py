import itertools
import json
from pathlib import Path

import pytest
from support.tiny_task import tiny_config

from focal_lab.training.fit import latest_checkpoint, train
from focal_lab.training.history_file import HISTORY_FILE, Point, read_history, write_history
from focal_lab.training.stop import STOP, Stopped


def test_a_training_leaves_a_point_a_validation() -> None:
    heard = []
    train(tiny_config(), Path("run"), listener=heard.append)
    first, second = read_history(Path("run"))
    assert (first.epoch, first.step, second.epoch, second.step) == (1.0, 2, 2.0, 4)
    assert {"train/loss", "val/loss", "val/top1", "val/top5", "lr"} == set(first.values)
    losses = [message["loss"] for message in heard if message["phase"] == "fit"]
    assert first.values["train/loss"] == pytest.approx(losses[0], rel=0.2)
    assert second.values["lr"] < first.values["lr"]


def test_the_points_of_a_shorter_epoch_are_fractions() -> None:
    train(tiny_config(trainer={"val_check_interval": 0.5, "max_epochs": 1}), Path("run"))
    assert [point.epoch for point in read_history(Path("run"))] == [0.5, 1.0]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_training_that_was_stopped_goes_on_with_its_curves(steps: int) -> None:
    config = tiny_config(data={"num_train_images": 128})  # 4 steps an epoch
    train(config, Path("whole"))
    asked = itertools.count(1)
    with pytest.raises(Stopped):
        train(config, Path("cut"), stop=lambda: STOP if next(asked) >= 4 + steps else None)
    assert len(read_history(Path("cut"))) <= 1
    train(config, Path("cut"), resume_from=latest_checkpoint(Path("cut")))
    assert read_history(Path("cut")) == read_history(Path("whole"))


def test_what_is_no_history_has_no_points(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    for text in ("", "[]", "{}", '{"schema": 2, "points": []}', '{"schema": 1, "points": [{"epoch": 1}]}'):
        (tmp_path / HISTORY_FILE).write_text(text)
        assert read_history(tmp_path) == []


def test_points_are_read_as_they_were_written(tmp_path: Path) -> None:
    points = [Point(0.5, 10, {"val/top1": 81.25, "lr": 1e-3}), Point(1.0, 20, {})]
    write_history(tmp_path, points)
    assert read_history(tmp_path) == points
    assert json.loads((tmp_path / HISTORY_FILE).read_text())["schema"] == 1
