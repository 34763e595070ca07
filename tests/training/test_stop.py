import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from support.tiny_task import InterruptAfter, InterruptionError, read_checkpoint, tiny_config
from torch.utils.data import DataLoader, Dataset

from focal_lab.training.fit import Stopped, TrainingResult, build, latest_checkpoint, train

RUN = Path("run")
LAST, BEST, STOPPED = (RUN / f"checkpoints/{name}.ckpt" for name in ("last", "best", "stopped"))
# 4 steps an epoch, 2 batches of validation and of test; everything random that there is
DATA = {"num_train_images": 128, "num_val_images": 64, "num_test_images": 64}
# how often `stop` is asked: 2 batches of sanity check, then 2 epochs of 4 + 2, then 2 of the test
SANITY, TRAIN, VALIDATION, TEST = (1, 2), (3, 4, 5, 6, 9, 10, 11, 12), (7, 8, 13, 14), (15, 16)


class At:
    """Says a word when it is asked for the n-th time."""

    def __init__(self, *times: int, word: str = "stop") -> None:
        self.times, self.word, self.asked = times, word, 0

    def __call__(self) -> str | None:
        self.asked += 1
        return self.word if self.asked in self.times else None


def config_of(trainer: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> dict[str, Any]:
    return tiny_config(
        trainer={"num_sanity_val_steps": 2} | (trainer or {}),
        data=DATA | (data or {}),
        options={"drop_path_rate": 0.3},
        mixup=0.8,
        cutmix=1.0,
    )


def noisy_config(workers: int) -> dict[str, Any]:
    config = config_of()
    config["data"] = {"class_path": f"{__name__}.NoisyData", "init_args": {"workers": workers}}
    return config


def run_to_end(config: dict[str, Any], folder: Path, *stops: Callable[[], str | None]) -> TrainingResult:
    """Train with one stop after another, going on each time from what was left."""
    for stop in stops:
        with pytest.raises(Stopped, match=r"^stopped by the request: stop$"):
            train(config, folder, resume_from=latest_checkpoint(folder), stop=stop)
    return train(config, folder, resume_from=latest_checkpoint(folder), stop=At())


def left_by(folder: Path) -> dict[str, Any]:
    """Everything in the checkpoints that does not tell the time or the folder, tensors as lists."""
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
    found = {path.name: read_checkpoint(path) for path in sorted((folder / "checkpoints").iterdir())}
    return {name: as_lists({key: state[key] for key in kept}) for name, state in found.items()}


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_lists(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


UNDISTURBED: dict[str, tuple[Any, dict[str, Any]]] = {}


def undisturbed(config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Metrics and checkpoints of a training without a stop, which is run once per configuration."""
    key = repr(config)
    if key not in UNDISTURBED:
        metrics = train(config, Path("undisturbed")).metrics
        UNDISTURBED[key] = metrics, left_by(Path("undisturbed"))
    return UNDISTURBED[key]


def assert_nothing_was_lost(config: dict[str, Any], *stops: Callable[[], str | None]) -> None:
    expected = undisturbed(config)
    assert (run_to_end(config, RUN, *stops).metrics, left_by(RUN)) == expected


@pytest.mark.parametrize("at", [*TRAIN[:3], TRAIN[3], *VALIDATION[:2], TRAIN[4], *VALIDATION[2:], *TEST])
def test_a_stop_at_any_batch_changes_no_bit_of_the_result(at: int) -> None:
    assert_nothing_was_lost(config_of(), At(at))


def test_several_stops_in_one_epoch_change_no_bit_of_the_result() -> None:
    # the second and third count from where the one before has stopped
    assert_nothing_was_lost(config_of(), At(4), At(1), At(1), At(2))


def test_a_stop_within_accumulated_gradients_waits_for_their_step() -> None:
    config = config_of({"accumulate_grad_batches": 3})
    with pytest.raises(Stopped):
        train(config, RUN, stop=At(TRAIN[1]))
    assert read_checkpoint(STOPPED)["global_step"] == 1
    assert read_checkpoint(STOPPED)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 3
    assert_nothing_was_lost(config)


@pytest.mark.parametrize(
    ("trainer", "at"),
    [
        ({"val_check_interval": 0.5}, 5),  # in the validation amid the epoch
        ({"val_check_interval": 0.5}, 7),
        ({"check_val_every_n_epoch": 2}, 9),
        ({"max_epochs": -1, "max_steps": 7}, 5),
        ({"max_epochs": -1, "max_steps": 7}, 11),  # at the very last step
        ({"limit_val_batches": 0}, 4),
    ],
)
def test_other_rhythms_of_validation_and_steps_are_kept(trainer: dict[str, Any], at: int) -> None:
    assert_nothing_was_lost(config_of(trainer), At(at))


@pytest.mark.parametrize("at", [4, 7, 11])
def test_loaders_with_processes_go_on_where_they_were(at: int) -> None:
    assert_nothing_was_lost(config_of(data={"num_workers": 2}), At(at))


class NoisyPictures(Dataset[Any]):
    """Items that draw from everything a process has to draw from, as augmentation does."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(3, 28, 28) * np.random.rand() + random.random()
        return noise + index / 64, index % 10


class NoisyData(LightningDataModule):
    """A loader without a generator, as data sets of files have."""

    num_classes = 10

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def train_dataloader(self) -> Any:
        return DataLoader(
            NoisyPictures(),
            batch_size=16,
            shuffle=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> Any:
        pictures = [(torch.full((3, 28, 28), index / 20), index % 10) for index in range(20)]
        return DataLoader(pictures, batch_size=10)

    test_dataloader = val_dataloader


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [4, 7, 10])
def test_augmentation_draws_what_it_would_have_drawn(workers: int, at: int) -> None:
    assert_nothing_was_lost(noisy_config(workers), At(at))


@pytest.mark.parametrize("config", [noisy_config(2), config_of({"max_epochs": -1, "max_steps": 7})])
def test_a_training_killed_within_an_epoch_repeats_it_exactly(config: dict[str, Any]) -> None:
    cli = build(config, RUN)
    cli.trainer.callbacks.append(InterruptAfter(1))
    with pytest.raises(InterruptionError):
        cli.trainer.fit(cli.model, cli.datamodule)
    assert latest_checkpoint(RUN) == LAST
    assert_nothing_was_lost(config)


def test_a_run_whose_folder_was_moved_still_knows_its_best_epoch() -> None:
    config = config_of()
    with pytest.raises(Stopped):
        train(config, RUN, stop=At(TRAIN[5]))
    RUN.rename("moved")
    moved = Path("moved")
    metrics = train(config, moved, resume_from=latest_checkpoint(moved)).metrics
    assert (metrics, left_by(moved)) == undisturbed(config)


@pytest.mark.parametrize("at", [SANITY[0], TRAIN[1], VALIDATION[0], TEST[0]])
def test_another_word_ends_the_training_at_once_and_leaves_no_checkpoint(at: int) -> None:
    with pytest.raises(Stopped) as caught:
        train(config_of(), RUN, stop=At(at, word="prune"))
    assert caught.value.word == "prune"
    assert not STOPPED.exists()


@pytest.mark.parametrize("at", [*SANITY, *TEST])
def test_before_and_after_training_there_is_nothing_to_save(at: int) -> None:
    with pytest.raises(Stopped):
        train(config_of(), RUN, stop=At(at))
    assert latest_checkpoint(RUN) == (None if at in SANITY else LAST)


def test_the_furthest_of_both_checkpoints_is_taken() -> None:
    assert latest_checkpoint(RUN) is None
    with pytest.raises(Stopped):
        train(config_of(), RUN, stop=At(TRAIN[5]))
    assert latest_checkpoint(RUN) == STOPPED
    kept = STOPPED.read_bytes()
    STOPPED.write_bytes(kept[:-1])
    assert latest_checkpoint(RUN) == LAST
    STOPPED.unlink()
    train(config_of(), RUN, resume_from=LAST)
    assert not STOPPED.exists()
    STOPPED.write_bytes(kept)
    assert latest_checkpoint(RUN) == LAST
    LAST.write_bytes(b"")
    assert latest_checkpoint(RUN) == STOPPED


def test_the_checkpoint_of_a_validation_counts_less_than_that_after_it() -> None:
    with pytest.raises(Stopped):
        train(config_of(), RUN, stop=At(VALIDATION[0]))
    kept = STOPPED.read_bytes()
    train(config_of(), RUN, resume_from=STOPPED)
    with pytest.raises(Stopped):
        train(config_of(), Path("other"), stop=At(TRAIN[4]))
    (Path("other/checkpoints/stopped.ckpt")).write_bytes(kept)
    assert latest_checkpoint(Path("other")) == Path("other/checkpoints/last.ckpt")


def test_the_checkpoint_of_a_stop_goes_when_a_later_one_is_written() -> None:
    seen = []

    def look() -> None:
        seen.append(STOPPED.exists())

    with pytest.raises(Stopped):
        train(config_of(), RUN, stop=At(TRAIN[1]))
    train(config_of(), RUN, resume_from=STOPPED, stop=look)
    # 2 batches and 2 of validation are left of the first epoch
    assert seen == [True] * 4 + [False] * 8


def test_times_and_images_of_both_parts_are_counted_once() -> None:
    config = config_of()
    with pytest.raises(Stopped):
        train(config, RUN, stop=At(TRAIN[5]))
    saved = read_checkpoint(STOPPED)["callbacks"]["Timing"]
    assert saved["images"] == 6 * 32
    assert saved["train_seconds"] > saved["step_seconds"] > 0
    trained = train(config, RUN, resume_from=STOPPED)
    assert trained.train_seconds > saved["train_seconds"]
    timing = read_checkpoint(LAST)["callbacks"]["Timing"]
    assert timing["images"] == 8 * 32
    assert timing["step_seconds"] > saved["step_seconds"]
