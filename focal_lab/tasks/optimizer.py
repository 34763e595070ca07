"""Optimizer and learning rate schedule of all tasks, made by timm."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer

from focal_lab.backbones.model import FocalTransformer
from focal_lab.errors import UserError


def check_option(name: str, value: Any, valid: bool, rule: str) -> None:
    """Refuse an invalid value of the model's option `name`, with the rule in words.

    Raises:
        UserError: it is invalid.
    """
    if not valid:
        raise UserError(f"{value} is not {rule}", key=f"model.{name}")


@dataclass(frozen=True)
class Recipe:
    """AdamW with linear warmup and then cosine, polynomial or step decay, updated after every batch.

    Attributes:
        lr: highest learning rate.
        weight_decay: decay of all weights but norms, biases and position tables.
        betas: AdamW's.
        layer_decay: factor on the learning rate from one layer to the previous one.
        warmup_epochs: epochs of linear warmup, may be fractional.
        warmup_lr: learning rate at the start of the warmup.
        min_lr: learning rate at the end.
        milestones: epochs after which the rate drops to a tenth, instead of the cosine.
        warmup_steps: optimizer steps of warmup, instead of epochs.
        decay_biases: whether biases are decayed like weights, as in Swin's detectors; not with layer decay.
        power: exponent of a polynomial decay, instead of the cosine.

    Raises:
        UserError: a number out of range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float | None = None
    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    milestones: tuple[float, ...] = ()
    warmup_steps: int | None = None
    decay_biases: bool = False
    power: float | None = None

    def __post_init__(self) -> None:
        rising = all(first < second for first, second in pairwise((0.0, *self.milestones)))
        decayed = self.layer_decay is None or 0 < self.layer_decay <= 1
        positive = self.power is None or 0 < self.power < math.inf
        check_option("lr", self.lr, 0 < self.lr < math.inf, "positive")
        check_option("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        check_option("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "a pair in [0, 1)")
        check_option("layer_decay", self.layer_decay, decayed, "in (0, 1]")
        check_option("warmup_epochs", self.warmup_epochs, 0 <= self.warmup_epochs < math.inf, "0 or more")
        check_option("warmup_lr", self.warmup_lr, 0 <= self.warmup_lr < math.inf, "0 or more")
        check_option("min_lr", self.min_lr, self.min_lr >= 0, "0 or more")
        check_option("milestones", self.milestones, rising, "a rising list of epochs")
        check_option("power", self.power, positive, "positive")
        check_option("warmup_steps", self.warmup_steps, (self.warmup_steps or 0) >= 0, "0 or more")
        if self.min_lr > self.lr and not self.milestones:
            raise UserError(
                f"{self.min_lr} is above model.lr, {self.lr}: the rate would rise to it; lower min_lr",
                key="model.min_lr",
            )

    def scaled(self, factor: float) -> "Recipe":
        """The recipe with all its learning rates multiplied."""
        return replace(
            self, lr=self.lr * factor, warmup_lr=self.warmup_lr * factor, min_lr=self.min_lr * factor
        )

    def optimizer(self, model: nn.Module, fused: bool) -> Optimizer:
        """AdamW over parameters with and without decay; a model's `no_weight_decay` names tables without."""
        if self.decay_biases:
            assert self.layer_decay is None
            groups = _groups(model, self.weight_decay)
            return AdamW(groups, lr=self.lr, betas=self.betas, fused=fused)
        optimizer: Optimizer = create_optimizer_v2(
            model,
            opt="adamw",
            lr=self.lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            layer_decay=self.layer_decay,
            fused=fused,
        )
        return optimizer

    def scheduler(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: float) -> Any:
        """timm's schedule over optimizer steps.

        Raises:
            UserError: the warmup is as long as the training.
        """
        option, length = "warmup_steps", f"{self.warmup_steps}"
        warmup_steps = self.warmup_steps
        if warmup_steps is None:
            warmup_steps = round(self.warmup_epochs * steps_per_epoch)
            option, length = "warmup_epochs", f"{self.warmup_epochs} epochs are {warmup_steps} steps"
        if warmup_steps >= total_steps:
            raise UserError(
                f"{length}, but the training has only {total_steps}; shorten the warmup or train longer",
                key=f"model.{option}",
            )
        warmup: dict[str, Any] = {
            "warmup_t": warmup_steps,
            "warmup_lr_init": min(self.warmup_lr, self.lr),
            "warmup_prefix": False,
            "t_in_epochs": False,
        }
        if self.milestones:
            # timm drops the rate a step before the one that is given
            steps = [round(epoch * steps_per_epoch) + 1 for epoch in self.milestones]
            return MultiStepLRScheduler(optimizer, decay_t=steps, decay_rate=0.1, **warmup)
        length_and_end: dict[str, Any] = {"t_initial": total_steps, "lr_min": self.min_lr}
        if self.power is not None:
            return PolyLRScheduler(optimizer, power=self.power, **length_and_end, **warmup)
        return CosineLRScheduler(optimizer, **length_and_end, **warmup)

    def configure(self, trainer: Any, model: nn.Module) -> dict[str, Any]:
        """What `configure_optimizers` returns: the optimizer, and its schedule over the trainer's steps.

        Raises:
            UserError: the training has no end, or the warmup is as long as it.
        """
        total = trainer.estimated_stepping_batches
        if not 0 < total < math.inf:
            raise UserError(
                f"a cosine schedule needs a finite number of steps, not {total}; set max_epochs or max_steps",
                key="trainer.max_epochs",
            )
        # not total / max_epochs: max_steps may end the training earlier, and then no data is loaded yet
        trainer.fit_loop.setup_data()
        batches = trainer.num_training_batches
        per_epoch = total if math.isinf(batches) else -(-batches // trainer.accumulate_grad_batches)
        optimizer = self.optimizer(model, fused=not trainer.precision.endswith("-mixed"))
        by_steps = total == trainer.max_steps and not self.milestones
        scheduler = Schedule(
            self.scheduler(optimizer, int(total), per_epoch),
            None if by_steps or math.isinf(batches) else per_epoch,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Schedule:
    """A timm schedule that follows the current recipe and length after a resume.

    Lightning would restore the checkpoint's, made for another length or other rates. Here a checkpoint only
    gives the position, in epochs, however many steps an epoch has now.

    Args:
        made: timm's.
        per_epoch: optimizer steps of an epoch; None for a training whose length is given in steps.
    """

    def __init__(self, made: Any, per_epoch: int | None) -> None:
        self.made, self.per_epoch = made, per_epoch
        self.optimizer: Optimizer = made.optimizer
        self._options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        self._ahead = 0  # of the optimizer's steps, where an epoch had more or fewer of them
        self._saved: dict[str, Any] | None = None

    def step(self, *_: Any) -> None:
        """Does nothing: the schedule follows optimizer steps."""

    def step_update(self, num_updates: int) -> None:
        """Set the learning rates after an optimizer step."""
        self.made.step_update(num_updates=num_updates + self._ahead)

    def state_dict(self) -> dict[str, Any]:
        """The position, without the rates."""
        return {"ahead": self._ahead, "per_epoch": self.per_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position, and give the optimizer, restored before, this recipe's options again."""
        self._saved = state_dict
        for group, options in zip(self.optimizer.param_groups, self._options, strict=True):
            group.update(options)

    def resume(self, step: int, epochs: int, batches: int, accumulated: int) -> None:
        """Set the rates of a resumed training after `step` steps, and `batches` of the unfinished epoch."""
        if self._saved is None or step == 0:
            return
        if self.per_epoch is None:
            self._ahead = 0
        elif self._saved.get("per_epoch") == self.per_epoch:
            self._ahead = self._saved["ahead"]
        else:
            self._ahead = epochs * self.per_epoch + -(-batches // accumulated) - step
        self._saved = None
        self.step_update(step)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with and without decay; norms and position tables have none, biases do."""
    spared: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._NormBase):
            spared |= {id(parameter) for parameter in module.parameters()}
            continue
        tables, recurse = {"relative_position_bias_table", "absolute_pos_embed"}, False
        if isinstance(module, FocalTransformer):
            tables, recurse = module.no_weight_decay(), True
        spared |= {id(p) for name, p in module.named_parameters(recurse=recurse) if name in tables}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
    ]
