import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule
from support.tiny_task import InterruptAfter, InterruptionError, read_checkpoint, tiny_config

from focal_lab.training import callbacks
from focal_lab.training.callbacks import (
    DivergedError,
    Progress,
    StopWhenDiverged,
    Timing,
)
from focal_lab.training.exact_resume import reseed
from focal_lab.training.fit import build, train

MODULE: Any = LightningModule()
LAST = Path("run/checkpoints/last.ckpt")


def fit(
    config: Mapping[str, Any], folder: str, *extra: Callback, resume: Path | None = None
) -> dict[str, Any]:
    """Train as a sweep does; the weights, or where a checkpoint was left by an interruption."""
    cli = build(config, Path(folder))
    cli.trainer.callbacks.extend(extra)
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume)
    return dict(cli.model.state_dict())


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def resumed_and_undisturbed(config: Mapping[str, Any]) -> tuple[Any, Any]:
    with pytest.raises(InterruptionError):
        fit(config, "run", InterruptAfter(1))
    assert read_checkpoint(LAST)["epoch"] == 0
    resumed = fit(config, "run", resume=LAST)
    return resumed, fit(config, "undisturbed")


@pytest.mark.parametrize(
    "model",
    [{}, {"mixup": 0.8, "cutmix": 1.0}],
    ids=["drop path", "drop path and mixup"],
)
def test_a_training_resumed_after_an_epoch_ends_with_the_very_same_weights(model: dict[str, Any]) -> None:
    config = tiny_config(options={"drop_path_rate": 0.5}, **model)
    resumed, undisturbed = resumed_and_undisturbed(config)
    assert differing(resumed, undisturbed) == []


def test_without_reseeding_a_resumed_training_would_draw_other_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("focal_lab.training.exact_resume.reseed", lambda *_: None)
    config = tiny_config(options={"drop_path_rate": 0.5})
    resumed, undisturbed = resumed_and_undisturbed(config)
    assert differing(resumed, undisturbed)


def test_seeds_and_epochs_draw_different_numbers() -> None:
    def drawn(seed: int, epoch: int, rank: int = 0) -> float:
        trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        reseed(seed, trainer)
        return torch.rand(()).item()

    combinations = [(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
    assert len({drawn(*combination) for combination in combinations}) == len(combinations)
    assert drawn(1, 1) == drawn(1, 1)
    assert math.isfinite(drawn(2**32 - 1, 300, 7))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training_and_its_batch_is_kept(
    value: float, tmp_path: Path
) -> None:
    optimizer: Any = SimpleNamespace(param_groups=[{"lr": 0.5}])
    trainer: Any = SimpleNamespace(
        global_step=6,
        log_every_n_steps=50,
        log_dir=str(tmp_path / "new"),
        world_size=1,
        current_epoch=3,
        optimizers=[optimizer],
    )
    watch = StopWhenDiverged()
    watch.on_train_batch_start(trainer, MODULE, [torch.ones(2), torch.zeros(2)], 4)
    with pytest.raises(DivergedError, match=rf"^the loss is {value} at step 7; lower model\.lr \(its batch"):
        watch.on_before_backward(trainer, MODULE, torch.tensor(value))
    kept = torch.load(tmp_path / "new" / "diverged.pt", weights_only=True)
    assert torch.equal(kept["batch"][0], torch.ones(2))
    assert (kept["epoch"], kept["batch_idx"], kept["global_step"], kept["lr"]) == (3, 4, 6, 0.5)


def test_a_finite_loss_goes_on() -> None:
    trainer: Any = SimpleNamespace(global_step=7, log_every_n_steps=50)
    StopWhenDiverged().on_before_backward(trainer, MODULE, torch.tensor(1e30))


def test_elsewhere_than_on_the_cpu_only_logged_steps_are_waited_for() -> None:
    # reading a value from the meta device raises: it tells whether the callback has looked
    loss = torch.zeros((), device="meta")
    quiet: Any = SimpleNamespace(global_step=7, log_every_n_steps=5)
    StopWhenDiverged().on_before_backward(quiet, MODULE, loss)
    due: Any = SimpleNamespace(global_step=9, log_every_n_steps=5)
    with pytest.raises(RuntimeError, match="meta"):
        StopWhenDiverged().on_before_backward(due, MODULE, loss)


def test_a_training_that_diverges_ends_at_that_step_with_the_weights_it_had() -> None:
    with pytest.raises(DivergedError, match=r"^the loss is nan at step [1-4]; lower") as reported:
        train(tiny_config(lr=1e30), Path("run"))
    assert "(its batch is in run/diverged.pt)" in str(reported.value)
    pictures, labels = torch.load("run/diverged.pt", weights_only=True)["batch"]
    assert len(pictures) == len(labels) == 32


class Clock:
    """Time that passes when it is reported to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(callbacks.time, "perf_counter", lambda: self.now)


def test_timing_counts_steps_without_validation_and_goes_on_after_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    trainer: Any = SimpleNamespace(world_size=2, num_training_batches=2)
    batch = (torch.zeros(16, 1), torch.zeros(16))

    def one_epoch(timing: Timing) -> None:
        timing.on_train_epoch_start(trainer, MODULE)
        clock.now += 3
        timing.on_train_batch_end(trainer, MODULE, None, batch, 0)
        clock.now += 1
        timing.on_train_batch_end(trainer, MODULE, None, batch[0], 1)
        clock.now += 10  # validation
        timing.on_train_epoch_end(trainer, MODULE)

    first = Timing()
    assert first.images_per_second == 0
    clock.now = 100
    first.on_fit_start(trainer, MODULE)
    clock.now += 5
    one_epoch(first)
    saved = first.state_dict()
    assert saved == {"train_seconds": 19, "step_seconds": 4, "images": 64}
    clock.now += 1000  # nothing of this is training
    second = Timing()
    second.load_state_dict(saved)
    second.on_fit_start(trainer, MODULE)
    one_epoch(second)
    second.on_fit_end(trainer, MODULE)
    assert (second.train_seconds, second.step_seconds, second.images) == (33, 8, 128)
    assert second.images_per_second == 16


def test_a_validation_amid_an_epoch_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    trainer: Any = SimpleNamespace(world_size=1, num_training_batches=2)
    batch, timing = (torch.zeros(16, 1), torch.zeros(16)), Timing()
    timing.on_validation_start(trainer, MODULE)  # the sanity check
    clock.now += 7
    timing.on_validation_end(trainer, MODULE)
    timing.on_train_epoch_start(trainer, MODULE)
    for index in range(2):
        clock.now += 3
        timing.on_train_batch_end(trainer, MODULE, None, batch, index)
        timing.on_validation_start(trainer, MODULE)
        clock.now += 10
        timing.on_validation_end(trainer, MODULE)
    timing.on_train_epoch_end(trainer, MODULE)
    assert (timing.step_seconds, timing.images) == (6, 32)


class Spoil(Callback):
    """Makes the weights what no loss has shown yet."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        with torch.no_grad():
            next(pl_module.parameters()).fill_(float("inf"))


def test_weights_that_the_last_step_spoiled_are_not_evaluated() -> None:
    spoil = {"class_path": f"{__name__}.Spoil"}
    with pytest.raises(DivergedError, match="is not finite after the last step"):
        train(tiny_config(trainer={"callbacks": [spoil], "max_epochs": 1}), Path("run"))


def test_asking_for_the_time_does_not_count_it_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    trainer: Any = SimpleNamespace()
    timing = Timing()
    clock.now = 1
    timing.on_fit_start(trainer, MODULE)
    for _ in range(3):
        clock.now += 2
        timing.state_dict()
    timing.on_fit_end(trainer, MODULE)
    assert timing.train_seconds == 6


def test_a_resumed_training_counts_the_images_of_both_parts_once() -> None:
    config = tiny_config()
    with pytest.raises(InterruptionError):
        fit(config, "run", Timing(), InterruptAfter(1))
    saved = read_checkpoint(LAST)["callbacks"]["Timing"]
    assert saved["images"] == 64
    timing = Timing()
    fit(config, "run", timing, resume=LAST)
    assert timing.images == 128
    assert timing.train_seconds > saved["train_seconds"] > saved["step_seconds"] > 0


def test_progress_tells_every_step_and_every_validation() -> None:
    reported: list[dict[str, Any]] = []
    fit(tiny_config(), "run", Progress(reported.append, interval=0))
    steps = [message for message in reported if message["phase"] == "fit"]
    assert [(m["step"], m["total"], m["epoch"]) for m in steps] == [
        (1, 4, 0),
        (2, 4, 0),
        (3, 4, 1),
        (4, 4, 1),
    ]
    assert [message.get("first") for message in steps] == [True, None, None, None]
    assert all(math.isfinite(message["loss"]) for message in steps)
    assert [message["metric"] is None for message in steps] == [True, True, False, False]
    validated = [message for message in reported if "validated" in message]
    assert [(m["step"], m["epoch"], m["validated"]) for m in validated] == [(2, 1, True), (4, 2, True)]
    assert all(0 <= message["metric"] <= 100 for message in validated)


def test_progress_goes_on_in_validation_and_test() -> None:
    reported: list[dict[str, Any]] = []
    cli = build(tiny_config(), Path("run"))
    cli.trainer.callbacks.append(Progress(reported.append, interval=0))
    cli.trainer.fit(cli.model, cli.datamodule)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    phases = [message["phase"] for message in reported]
    # 48 images are 2 batches; each validation has a message of its own at the end
    sanity, epoch = ["validate"], ["fit", "fit", "validate", "validate", "validate"]
    assert phases == [*sanity, *epoch, *epoch, "test", "test"]
    assert {message["total"] for message in reported} == {4}
    assert reported[-1]["step"] == 4


def test_progress_in_the_second_half_of_an_epoch_counts_the_epoch_when_it_ends() -> None:
    reported: list[dict[str, Any]] = []
    fit(tiny_config(trainer={"val_check_interval": 0.5}), "run", Progress(reported.append, interval=math.inf))
    assert [message["epoch"] for message in reported if "validated" in message] == [0, 1, 1, 2]


def test_progress_between_validations_keeps_to_its_interval_but_for_the_first_step() -> None:
    reported: list[dict[str, Any]] = []
    fit(tiny_config(), "run", Progress(reported.append, interval=math.inf))
    assert [(message["step"], message["phase"]) for message in reported] == [
        (0, "validate"),
        (1, "fit"),
        (2, "validate"),
        (4, "validate"),
    ]
