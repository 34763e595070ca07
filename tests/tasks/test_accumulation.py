from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny_task import quiet_trainer, tiny_config

from focal_lab.errors import UserError
from focal_lab.tasks.base import accumulate
from focal_lab.training.fit import build
from focal_lab.training.lightning_cli import FocalCLI


def trainer_of(batch_size: int, devices: int, accumulated: int = 1) -> Any:
    data = SimpleNamespace(batch_size=batch_size)
    return SimpleNamespace(datamodule=data, world_size=devices, accumulate_grad_batches=accumulated)


@pytest.mark.parametrize(
    ("batch_size", "devices", "accumulated", "pictures"),
    [(128, 8, 1, 1024), (128, 1, 8, 1024), (64, 8, 2, 1024), (100, 3, 3, 900), (2048, 1, 1, 2048)],
)
def test_the_papers_step_is_reached_at_any_number_of_devices(
    batch_size: int, devices: int, accumulated: int, pictures: int
) -> None:
    trainer = trainer_of(batch_size, devices)
    factor, step = accumulate(trainer, 1024, 1e-3)
    assert trainer.accumulate_grad_batches == accumulated
    assert step.startswith(f"{pictures} images a step: ")
    assert factor == pictures / 1024


def test_a_step_is_reported_in_one_line() -> None:
    assert accumulate(trainer_of(128, 1), 1024, 1e-3)[1] == (
        "1024 images a step: 8 batches x 128 images; learning rate 0.001"
    )
    assert accumulate(trainer_of(100, 3), 1024, 1e-3)[1] == (
        "900 images a step: 3 devices x 3 batches x 100 images; learning rate 0.000879 "
        "(0.001 is for 1024 images)"
    )


def fitted(**changes: Any) -> FocalCLI:
    config = tiny_config(
        trainer={"max_epochs": 1, "logger": False, "enable_checkpointing": False},
        options={"drop_path_rate": 0.0},
        label_smoothing=0.0,
        **changes,
    )
    made = FocalCLI(config, run=False)
    made.trainer.fit(made.model, made.datamodule)
    return made


def test_accumulated_batches_train_like_one_batch_of_the_same_images() -> None:
    whole = fitted(data={"batch_size": 32}, total_batch_size=32)
    parts = fitted(data={"batch_size": 8}, total_batch_size=32)
    assert (whole.trainer.global_step, parts.trainer.global_step) == (2, 2)
    assert parts.trainer.accumulate_grad_batches == 4
    for name, weight in whole.model.model.state_dict().items():
        assert torch.allclose(weight, parts.model.model.state_dict()[name], atol=2e-5), name


def test_learning_rates_grow_with_a_step_that_misses_the_number() -> None:
    made = fitted(data={"batch_size": 32}, total_batch_size=16, warmup_epochs=0.5, warmup_lr=1e-4)
    schedule: Any = made.trainer.lr_scheduler_configs[0].scheduler.made
    assert schedule.base_values[0] == pytest.approx(2 * 0.003)
    assert (schedule.warmup_lr_init, schedule.lr_min) == pytest.approx((2e-4, 2e-5))


def test_a_trainer_that_accumulates_otherwise_is_refused() -> None:
    trainer = trainer_of(4, 1, accumulated=3)
    with pytest.raises(UserError, match=r"^trainer.accumulate_grad_batches: 3 contradicts .* 8, for which 2"):
        accumulate(trainer, 8, 1e-3)
    trainer.datamodule = None
    with pytest.raises(UserError, match=r"^model.total_batch_size: NoneType has no batch_size"):
        accumulate(trainer, 8, 1e-3)


def test_zero_images_are_no_step() -> None:
    with pytest.raises(UserError, match=r"^model.total_batch_size: 0 is not 1 or more"):
        build(tiny_config(total_batch_size=0), Path("run"))


def test_without_the_option_a_batch_is_a_step() -> None:
    trainer = quiet_trainer()
    made = FocalCLI(tiny_config(), run=False)
    trainer.fit(made.model, made.datamodule)
    assert (trainer.accumulate_grad_batches, made.model.lr_factor) == (1, 1.0)


@pytest.mark.parametrize(("group", "said"), [(1, 0), (2, 1), (3, 0)])
def test_an_incomplete_last_step_is_said(group: int, said: int, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(
        trainer={"accumulate_grad_batches": group, "max_epochs": 1, "limit_val_batches": 0},
        data={"num_train_images": 96},
    )
    made: Any = build(config, Path("run"))
    with caplog.at_level("INFO"):
        made.trainer.fit(made.model, made.datamodule)
    sentence = "3 batches an epoch are not a multiple of the 2 that are accumulated: the last step"
    assert sum(sentence in record.message for record in caplog.records) == said
