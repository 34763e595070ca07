from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from support.tiny_task import tiny_config
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch import Tensor

from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.classification.images import ShowClasses
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.image_callbacks import SHOWN, DisplayOptions, colour
from focal_lab.training.fit import build, train


class Silent(Classification):
    """Shows nothing."""

    def configure_callbacks(self) -> list[Any]:
        return super().configure_callbacks()[1:]


class Mute(Classification):
    """A task whose validation tells the callbacks nothing."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        super().validation_step(batch, batch_idx)


def tags(folder: Path) -> dict[str, list[int]]:
    """Tag -> steps, of the images in a run's event file."""
    (file,) = folder.glob("events.out.tfevents.*")
    found: dict[str, list[int]] = {}
    for event in LegacyEventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.HasField("image"):
                found.setdefault(value.tag, []).append(event.step)
    return found


def look(*names: str) -> DisplayOptions:
    made = DisplayOptions.__new__(DisplayOptions)
    made.mean, made.std, made.classes = (0.0,) * 3, (1.0,) * 3, Classes(names)
    return made


def share_of(picture_3HW: Tensor, label: int) -> float:
    """How much of a image has the very colour of a class."""
    wanted_3 = torch.tensor(colour(label)).view(3, 1, 1)
    return float((picture_3HW == wanted_3).all(0).float().mean())


def test_a_training_shows_the_same_validation_images_after_every_epoch() -> None:
    train(tiny_config(), Path("run"))
    assert tags(Path("run")) == {f"val/picture_{i}": [2, 4] for i in range(SHOWN)}


def test_what_is_shown_does_not_change_what_is_found() -> None:
    config = tiny_config(options={"drop_path_rate": 0.2}, mixup=0.8)
    shown = train(config, Path("run")).metrics
    config["model"]["class_path"] = f"{__name__}.Silent"
    assert train(config, Path("silent")).metrics == shown
    assert tags(Path("silent")) == {}
    weights = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("run", "silent")]
    for name, weight in weights[0]["state_dict"].items():
        assert torch.equal(weight, weights[1]["state_dict"][name]), name


def test_a_task_that_tells_nothing_and_a_logger_without_images_show_nothing() -> None:
    config = tiny_config(trainer={"max_epochs": 1})
    config["model"]["class_path"] = f"{__name__}.Mute"
    train(config, Path("mute"))
    assert tags(Path("mute")) == {}
    cli = build(tiny_config(trainer={"max_epochs": 1}), Path("other"))
    cli.trainer.loggers = []
    assert not isinstance(cli.trainer.logger, TensorBoardLogger)
    cli.trainer.fit(cli.model, cli.datamodule)


@pytest.mark.parametrize("size", [(3, 28, 28), (3, 224, 300), (3, 20, 400)])
def test_truth_and_answer_are_of_one_size_whatever_the_image(size: tuple[int, int, int]) -> None:
    picture = torch.zeros(size, dtype=torch.uint8)
    names = look("a name that is much too long for any picture", "b")
    truth = ShowClasses().draw_truth(names, picture, torch.tensor(0))
    found = ShowClasses().draw_found(names, picture, torch.tensor([0.0, 3.0]))
    assert truth.shape == found.shape
    assert truth.dtype == found.dtype == torch.uint8


def test_the_bars_are_as_long_as_their_classes_are_likely() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    found = ShowClasses().draw_found(look("a", "b", "c"), torch.zeros(3, 300, 600, dtype=torch.uint8), logits)
    shares = [share_of(found, label) for label in range(3)]
    assert shares[0] / shares[1] == pytest.approx(3.5, rel=0.05)
    assert shares[0] / shares[2] == pytest.approx(7.0, rel=0.1)


def test_the_truth_has_its_classs_colour_and_leaves_the_image_to_be_seen() -> None:
    truth = ShowClasses().draw_truth(
        look("a", "b"), torch.zeros(3, 28, 28, dtype=torch.uint8), torch.tensor(1)
    )
    assert share_of(truth, 1) > 0
    assert share_of(truth, 0) == 0
    assert float((truth == 0).all(0).float().mean()) > 0.85
