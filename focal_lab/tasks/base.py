"""The base class of the three tasks."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torchmetrics import Metric, MetricCollection

from focal_lab.backbones.counting import count_parameters
from focal_lab.backbones.options import Size
from focal_lab.data.classification.class_names import differing
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.classes import Classes, check_count
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.optimizer import Recipe, Schedule
from focal_lab.tasks.recorded import Recorded

_CLASSES = "focal_lab_classes"
EVALUATED_AT = "focal_lab_evaluated_at"
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def tests_on_validation(data: Any) -> bool:
    """Whether a data module tests on its validation images, by which the best epoch is chosen."""
    return bool(getattr(data, "tests_on_validation", False))


class Task(LightningModule):
    """A network with its training recipe and the names of its classes.

    A task has the hyperparameters `backbone` and `num_classes`.

    Attributes:
        monitor: the metric that the best checkpoint is chosen by, and `monitor_mode`, "max" or "min".
        model: everything that is trained.
        recipe: optimizer and schedule.
        lr_factor: factor on the recipe's learning rates for the images per step on these devices.
        classes: names of the classes, empty until a data module with names was attached.
    """

    monitor: str
    monitor_mode = "max"
    model: nn.Module
    recipe: Recipe
    lr_factor: float

    def __init__(self) -> None:
        super().__init__()
        self.classes = Classes()
        self.lr_factor = 1.0
        self._evaluated_at: Size | None = None

    @property
    def attached_data(self) -> Any:
        """The trainer's data module, or None."""
        return getattr(self._trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Check the model against data and trainer before anything is computed.

        Raises:
            UserError: the data's classes or channels are not the model's, or the trainer has a precision or
                strategy that would give other numbers.
        """
        data = self.attached_data
        _check_trainer(self.trainer, self.recipe, self.hparams, stage)
        _check_channels(self.hparams, data)
        # prediction needs no labels, and its data may have no classes
        if data is None or stage == "predict":
            return
        if stage == "fit":
            self.classes = Classes.of(data)
            wanted = self.hparams.get("total_batch_size")
            if wanted is not None:
                self.lr_factor, step = accumulate(self.trainer, wanted, self.recipe.lr)
                rank_zero_info(step)
            found = evaluation_size(self, data)
            self._evaluated_at = found.size if found.known else None
        else:
            self._compare_classes(data)
        check_count(self.hparams["num_classes"], data)

    def configure_optimizers(self) -> Any:
        return self.recipe.scaled(self.lr_factor).configure(self.trainer, self.model)

    def on_validation_epoch_start(self) -> None:
        """Reset: `trainer.validate` leaves inference tensors, which `fit` cannot update."""
        for name, part in self.named_children():
            if name.startswith("val_") and isinstance(part, Metric | MetricCollection):
                part.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class names and input size, so that prediction and export need no data."""
        checkpoint[_CLASSES] = asdict(self.classes)
        if self._evaluated_at is not None:
            checkpoint[EVALUATED_AT] = list(self._evaluated_at)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the class names.

        Raises:
            UserError: the attached data has other classes, whose labels would mean something else.
        """
        self.classes = Classes(**checkpoint.get(_CLASSES, {}))
        if self.attached_data is not None and not self.trainer.predicting:
            self._compare_classes(self.attached_data)

    def _compare_classes(self, data: Any) -> None:
        """Check that labels mean the same in the data as they did in training."""
        others = Classes.of(data)
        if not (self.classes.names and others.names):
            return
        difference = differing(self.classes.listed, others.listed, ("in training", "in the data"))
        if difference:
            raise UserError(f"the classes differ: {difference}", key="--ckpt_path")

    def on_test_start(self) -> None:
        """Warn where the tested images have chosen the checkpoint."""
        checkpoint = self.trainer.ckpt_path
        if checkpoint and Path(checkpoint).name == "best.ckpt" and tests_on_validation(self.attached_data):
            rank_zero_warn(
                f"{checkpoint} was chosen by the validation images, and the data has no others to test on: "
                "report last.ckpt"
            )

    def recorded(self) -> Recorded | None:
        """What the images of this process's test were predicted to be; None if the task does not keep it.

        Called when all images were evaluated, before `on_test_epoch_end`.
        """
        return None

    def on_train_start(self) -> None:
        """Find the position in the schedule, now that Lightning has restored the epoch counters."""
        trainer = self.trainer
        batches, group = trainer.num_training_batches, trainer.accumulate_grad_batches
        if group > 1 and batches != float("inf") and batches % group:
            # Lightning steps at an epoch's end, too, and still divides by the whole group
            rank_zero_info(
                f"{int(batches)} batches an epoch are not a multiple of the {group} that are accumulated: "
                f"the last step of each epoch has {int(batches) % group}, and its gradient is smaller"
            )
        epochs: Any = trainer.fit_loop.epoch_progress.current
        started = epochs.ready > epochs.processed
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready if started else 0
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Schedule):
                config.scheduler.resume(self.global_step, epochs.processed, done, group)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers need the step number."""
        scheduler.step_update(num_updates=self.global_step)

    def network_size(self, image: Size) -> Size:
        """The network's input in evaluation for an image of that size: resized, cut, padded."""
        raise NotImplementedError

    def usual_size(self) -> Size:
        """The network's input where the images' size is unknown: the papers', or the backbone's own."""
        raise NotImplementedError

    def gmacs(self, size: Size) -> float:
        """Billions of multiply-accumulates for one image of (height, width) pixels."""
        raise NotImplementedError

    def count(self, size: Size) -> tuple[int, float]:
        """Parameters, and billions of multiply-accumulates for one image of (height, width) pixels.

        Raises:
            UserError: the backbone does not accept images of this size.
        """
        try:
            return count_parameters(self.model), self.gmacs(size)
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = size
            raise UserError(
                f"{self.hparams['backbone']} does not take images of {height} x {width} px: {error}",
                key="model.backbone",
            ) from error


def accumulate(trainer: Any, wanted: int, lr: float) -> tuple[float, str]:
    """Make a trainer accumulate the number of batches that comes closest to `wanted` images per step.

    Returns:
        The factor on the learning rates, which grow with the batch (Goyal et al. 2017, 2.1), and one line
        about the step with `lr`, the highest.

    Raises:
        UserError: the trainer already accumulates another number, or its data module has no `batch_size`.
    """
    data, devices = getattr(trainer, "datamodule", None), trainer.world_size
    batch_size = getattr(data, "batch_size", None)
    if not isinstance(batch_size, int):
        raise UserError(
            f"{type(data).__name__} has no batch_size to compute with (use null, and "
            "trainer.accumulate_grad_batches)",
            key="model.total_batch_size",
        )
    batches = max(1, round(wanted / (batch_size * devices)))
    if trainer.accumulate_grad_batches not in (1, batches):
        raise UserError(
            f"{trainer.accumulate_grad_batches} contradicts model.total_batch_size, {wanted}, for which "
            f"{batches} batches are accumulated (leave one of them out)",
            key="trainer.accumulate_grad_batches",
        )
    trainer.accumulate_grad_batches = batches
    images = batch_size * devices * batches
    counts = ((devices, "devices"), (batches, "batches"), (batch_size, "images"))
    parts = " x ".join(f"{count} {name}" for count, name in counts if count > 1 or name == "images")
    factor = images / wanted
    intended = "" if images == wanted else f" ({lr:.3g} is for {wanted} images)"
    return factor, f"{images} images a step: {parts}; learning rate {lr * factor:.3g}{intended}"


def _check_trainer(trainer: Any, recipe: Recipe, hyperparameters: Mapping[str, Any], stage: str) -> None:
    if trainer.precision not in _PRECISIONS:
        raise UserError(
            f"{trainer.precision} is not supported: weights and images are float32 "
            f"(use {one_of(_PRECISIONS)})",
            key="trainer.precision",
        )
    if stage != "fit" or not isinstance(trainer.strategy, FSDPStrategy):
        return
    averaged = hyperparameters.get("ema_decay") is not None
    if recipe.weight_decay or averaged:
        raise UserError(
            "shards have one dimension, so that fsdp would decay no weights and average none (use ddp, which "
            "is enough for 200 M weights, or model.weight_decay=0 and no model.ema_decay)",
            key="trainer.strategy",
        )


def _check_channels(options: Mapping[str, Any], data: Any) -> None:
    """Check the network's input channels, where the data has an attribute `channels`."""
    needed = (options.get("backbone_options") or {}).get("in_chans", 3)
    given = getattr(data, "channels", None)
    if given is not None and needed != given:
        raise UserError(
            f"in_chans {needed} is not {given}, the channels of the images of {type(data).__name__}",
            key="model.backbone_options",
        )
