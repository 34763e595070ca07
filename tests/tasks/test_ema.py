from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from support.tiny_task import InterruptAfter, InterruptionError, quiet_trainer, read_checkpoint, tiny_config

from focal_lab.errors import UserError
from focal_lab.tasks.weights_file import read_weights
from focal_lab.training.fit import build as build_run
from focal_lab.training.fit import train
from focal_lab.training.lightning_cli import FocalCLI

LAST = Path("run/checkpoints/last.ckpt")


def build(**model: Any) -> FocalCLI:
    return FocalCLI(tiny_config(**model), run=False)


class ByHand(Callback):
    """The average as it is defined: the weights at the first step, then a mix of both."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.value: dict[str, torch.Tensor] = {}

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        # called before the next step, and once before the first
        self._follow(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._follow(trainer, pl_module)

    def _follow(self, trainer: Any, pl_module: Any) -> None:
        weights = {name: p.detach().double().clone() for name, p in pl_module.model.named_parameters()}
        keep = self.decay if trainer.global_step > 1 else 0.0
        if trainer.global_step:
            old = self.value or weights
            self.value = {name: keep * old[name] + (1 - keep) * weights[name] for name in weights}


def test_the_average_begins_as_the_weights_and_follows_them() -> None:
    made, by_hand = build(ema_decay=0.5), ByHand(0.5)
    trainer = quiet_trainer(max_epochs=3, callbacks=[by_hand])
    trainer.fit(made.model, made.datamodule)
    assert trainer.global_step == 6
    average = dict(made.model.ema.module.named_parameters())
    for name, expected in by_hand.value.items():
        assert torch.allclose(average[name].double(), expected, atol=1e-6), name
        assert not average[name].requires_grad


def test_the_average_does_not_change_what_is_trained() -> None:
    plain, averaged = build(), build(ema_decay=0.9)
    for made in (plain, averaged):
        quiet_trainer().fit(made.model, made.datamodule)
    ours = averaged.model.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in plain.model.model.state_dict().items())


def test_both_are_evaluated_and_come_into_the_result() -> None:
    trained = train(tiny_config(ema_decay=0.99), Path("run"))
    assert set(trained.metrics) == {"top1", "top5", "loss", "ema_top1", "ema_top5", "ema_loss"}
    assert trained.metrics["ema_loss"] != trained.metrics["loss"]


def test_an_average_that_keeps_nothing_is_evaluated_like_the_weights() -> None:
    metrics = train(tiny_config(ema_decay=1e-12), Path("run")).metrics
    assert metrics["ema_loss"] == pytest.approx(metrics["loss"], abs=1e-6)


def test_a_training_that_goes_on_has_the_undisturbed_ones_average() -> None:
    config = tiny_config(ema_decay=0.7, ema_warmup=True, mixup=0.8, options={"drop_path_rate": 0.5})
    undisturbed = train(config, Path("undisturbed"))
    made = build_run(config, Path("run"))
    made.trainer.callbacks.append(InterruptAfter(1))
    with pytest.raises(InterruptionError):
        made.trainer.fit(made.model, made.datamodule)
    resumed = train(config, Path("run"), resume_from=LAST)
    assert resumed.metrics == undisturbed.metrics


def test_weights_of_a_checkpoint_are_read_without_its_average() -> None:
    train(tiny_config(ema_decay=0.9), Path("run"))
    assert any(name.startswith("ema.module.") for name in read_checkpoint(LAST)["state_dict"])
    weights = read_weights(LAST)
    assert weights
    assert all(name.startswith("model.") for name in weights)
    started = build(backbone_checkpoint=str(LAST))
    first = started.model.model.state_dict()["patch_embed.proj.weight"]
    assert torch.equal(first, weights["model.patch_embed.proj.weight"])


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match=r"^model.ema_decay: "):
        build_run(tiny_config(ema_decay=decay), Path("run"))
