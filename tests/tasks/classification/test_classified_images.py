from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from support.tiny_task import tiny_config
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch import Tensor

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.classification.images import draw_found, draw_truth
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.image_callbacks import SHOWN, colour, magnification
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
def test_truth_and_prediction_have_their_classes_colours_below_the_image(size: tuple[int, int, int]) -> None:
    picture = torch.zeros(size, dtype=torch.uint8)
    task = SimpleNamespace(classes=Classes(("a name that is much too long for any picture", "b", "c")))
    truth = draw_truth(task, picture, torch.tensor(1))
    found = draw_found(task, picture, torch.tensor([0.7, 0.2, 0.1]).log())
    high, wide = (side * magnification(picture) for side in size[1:])
    for drawn in (truth, found):
        assert drawn.dtype == torch.uint8
        assert drawn[:, :high, :wide].sum() == 0 < drawn[:, high:].sum()
    assert [share_of(truth, label) > 0 for label in range(3)] == [False, True, False]
    assert all(share_of(found, label) > 0 for label in range(3))


def test_the_most_likely_classes_are_listed_with_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "focal_lab.tasks.classification.images.with_notes", lambda _, notes: [note.word for note in notes]
    )
    task, black = SimpleNamespace(classes=Classes(tuple("abcdef"))), torch.zeros(3, 28, 28, dtype=torch.uint8)
    words: Any = draw_found(task, black, torch.tensor([0.02, 0.5, 0.2, 0.15, 0.1, 0.03]).log())
    assert words == ["FOUND", "b 0.500", "c 0.200", "d 0.150", "e 0.100", "f 0.030"]
    words = draw_truth(task, black, torch.tensor(2))
    assert words == ["TRUE", "c"]
