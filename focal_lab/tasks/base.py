"""What the three tasks share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from focal_lab.backbones.counting import count_parameters
from focal_lab.backbones.options import Size
from focal_lab.data.classification.class_names import differing
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.class_count import check_count
from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.optimizer import Recipe, Schedule
from focal_lab.training.accumulation import accumulate
from focal_lab.training.fsdp import Sharded, check_sharded
from focal_lab.training.resumed_options import (
    STEP,
    changes,
    check_place,
    check_what_is_left,
    keep_patience,
    regroup,
    trainer_options,
)

_CLASSES = "focal_lab_classes"
EVALUATED_AT = "focal_lab_evaluated_at"
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def tests_on_validation(data: Any) -> bool:
    """Whether a data module tests on the images that it validates on, by which the best epoch is chosen."""
    return bool(getattr(data, "tests_on_validation", False))


def _check_precision(precision: str) -> None:
    if precision not in _PRECISIONS:
        raise UserError(
            f"{precision} is not supported: weights and images are float32 (use {one_of(_PRECISIONS)})",
            key="trainer.precision",
        )


def _check_channels(options: Mapping[str, Any], data: Any) -> None:
    """Hold the network's input against the images, where the data says how many channels they have."""
    needed = (options.get("backbone_options") or {}).get("in_chans", 3)
    given = getattr(data, "channels", None)
    if given is not None and needed != given:
        raise UserError(
            f"in_chans {needed} is not {given}, the channels of the images of {type(data).__name__}",
            key="model.backbone_options",
        )


class Task(LightningModule):
    """A network with its recipe, which knows what its classes are called.

    A task has the hyperparameters `backbone` and `num_classes`.

    Attributes:
        monitor: the metric that the best checkpoint is chosen by.
        monitor_mode: whether much of it is good, "max", or little, "min".
        model: everything that is learned.
        recipe: how it is learned.
        lr_factor: what its learning rates are multiplied by, for the pictures of a step on these devices.
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
        """The trainer's data module; None where there is none."""
        return getattr(self._trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Hold the model against the data before anything is computed.

        Raises:
            UserError: the data has not as many classes as the model, or its weights cannot be divided as is
                asked.
        """
        if stage == "fit":
            check_sharded(self.trainer.strategy, self.hparams)
        _check_precision(self.trainer.precision)
        data = self.attached_data
        _check_channels(self.hparams, data)
        # what is only predicted needs no labels, and its data may know no classes
        if data is None or stage == "predict":
            return
        if stage == "fit":
            self.classes = Classes.of(data)
            self._accumulate()
            found = evaluation_size(self, data)
            self._evaluated_at = found.size if found.known else None
        else:
            self._compare_classes(data)
        check_count(self.hparams["num_classes"], data)

    def _accumulate(self) -> None:
        """Reach the recipe's pictures a step on the devices that there are, and say so."""
        wanted = self.hparams.get("total_batch_size")
        if wanted is None:
            return
        step = accumulate(self.trainer, wanted)
        rank_zero_info(step.describe(self.recipe.lr))
        self.lr_factor = step.lr_factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names of the classes and size go with the weights: to predict or export, no data are needed."""
        checkpoint[_CLASSES] = self.classes.as_dict()
        if self._evaluated_at is not None:
            checkpoint[EVALUATED_AT] = list(self._evaluated_at)
        if self._trainer is not None:
            checkpoint[STEP] = self._options()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the names; a training that is resumed applies the options that it is given now.

        Raises:
            UserError: the attached data has other classes, whose labels would mean something else; or the
                training cannot be resumed with these options.
        """
        self.classes = Classes(**checkpoint.get(_CLASSES, {}))
        data = self.attached_data
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._resume(checkpoint)
        if data is None or self.trainer.predicting:
            return
        self._compare_classes(data)

    def _compare_classes(self, data: Any) -> None:
        """Labels mean the same in the data as they did in training."""
        others = Classes.of(data)
        if not (self.classes.names and others.names):
            return
        difference = differing(self.classes.listed, others.listed, ("in training", "in the data"))
        if difference:
            raise UserError(f"the classes are others: {difference}", key="--ckpt_path")

    def _options(self) -> dict[str, Any]:
        return trainer_options(self.trainer, getattr(self.attached_data, "batch_size", None))

    def _resume(self, checkpoint: dict[str, Any]) -> None:
        finished = check_what_is_left(checkpoint, self.trainer)
        changed = changes(checkpoint, self, self.attached_data, self._options())
        if finished:
            rank_zero_warn(f"--ckpt_path: {finished}")
        elif changed:
            rank_zero_warn(
                f"--ckpt_path: {', '.join(changed)}: the training goes on, but not as it would have: what is "
                "given now applies, and the learning rates follow the new schedule"
            )
        check_place(checkpoint, self._options())
        keep_patience(checkpoint, self.trainer)
        if not isinstance(self.trainer.strategy, Sharded):  # which refuses other groups
            regroup(checkpoint, self.recipe, self.model)

    def on_test_start(self) -> None:
        """Say so where the images that are tested have chosen the checkpoint."""
        checkpoint = self.trainer.ckpt_path
        if checkpoint and Path(checkpoint).name == "best.ckpt" and tests_on_validation(self.attached_data):
            rank_zero_warn(
                f"{checkpoint} was chosen by the validation images, and the data has no others to test on: "
                "report last.ckpt"
            )

    def on_train_start(self) -> None:
        """Find the place in the schedule; Lightning has counted the epochs of a checkpoint by now."""
        self._say_incomplete_step()
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        begun = epochs.ready > epochs.processed
        batches = loop.epoch_loop.batch_progress.current.ready if begun else 0
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Schedule):
                config.scheduler.resume(
                    self.global_step, epochs.processed, batches, self.trainer.accumulate_grad_batches
                )

    def _say_incomplete_step(self) -> None:
        """Lightning steps at an epoch's end, too, and divides by the whole group all the same."""
        batches, group = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        if group > 1 and batches != float("inf") and batches % group:
            rank_zero_info(
                f"{int(batches)} batches an epoch are not a multiple of the {group} that are accumulated: "
                f"the last step of each epoch is of {int(batches) % group}, its gradient that much smaller"
            )

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """The norm of gradients that are divided among devices is known to their strategy alone."""
        strategy = self.trainer.strategy
        if isinstance(strategy, Sharded) and gradient_clip_val and gradient_clip_algorithm != "value":
            strategy.clip_gradients(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers want to be told the step."""
        scheduler.step_update(num_updates=self.global_step)

    def network_size(self, image: Size) -> Size:
        """What evaluation feeds to the network for an image of that size: resized, cut, padded."""
        raise NotImplementedError

    def usual_size(self) -> Size:
        """The network's input where nobody knows how large images are: the papers', or the backbone's own."""
        raise NotImplementedError

    def gmacs(self, size: Size) -> float:
        """Billions of multiply-accumulates for one picture of (height, width) pixels."""
        raise NotImplementedError

    def count(self, size: Size) -> tuple[int, float]:
        """Parameters, and billions of multiply-accumulates for one picture of (height, width) pixels.

        Raises:
            UserError: the backbone does not take pictures of this size.
        """
        try:
            return count_parameters(self.model), self.gmacs(size)
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = size
            raise UserError(
                f"{self.hparams['backbone']} does not take pictures of {height} x {width} px: {error}",
                key="model.backbone",
            ) from error
