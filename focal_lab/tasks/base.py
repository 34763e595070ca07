"""What the three tasks share."""

from typing import Any

from lightning import LightningModule
from torch import nn

from focal_lab.backbones.counting import count_parameters
from focal_lab.errors import UserError
from focal_lab.tasks.classes import Classes, shortened
from focal_lab.tasks.schedule import Recipe

_CLASSES = "focal_lab_classes"


class Task(LightningModule):
    """A network with its recipe, which knows what its classes are called.

    A task has the hyperparameters `backbone` and `num_classes`.

    Attributes:
        monitor: the metric that the best checkpoint is chosen by.
        monitor_mode: whether much of it is good, "max", or little, "min".
        model: everything that is learned.
        recipe: how it is learned.
        classes: names of the classes, empty until a data module with names was attached.
    """

    monitor: str
    monitor_mode = "max"
    model: nn.Module
    recipe: Recipe

    def __init__(self) -> None:
        super().__init__()
        self.classes = Classes()

    @property
    def attached_data(self) -> Any:
        """The trainer's data module; None where there is none."""
        return getattr(self._trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Hold the model against the data before anything is computed.

        Raises:
            UserError: the data has more classes than the model.
        """
        data = self.attached_data
        # what is only predicted needs no labels, and its data may know no classes
        if data is None or stage == "predict":
            return
        if stage == "fit":
            self.classes = Classes.of(data)
        classes = getattr(data, "num_classes", None)
        if classes is not None and classes > self.hparams["num_classes"]:
            raise UserError(
                f"{self.hparams['num_classes']} are too few for the {classes} classes of the data",
                key="model.num_classes",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The classes' names go with the weights: to predict, no file of names is needed."""
        checkpoint[_CLASSES] = self.classes.as_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the names.

        Raises:
            UserError: the attached data has other classes; their labels would mean something else.
        """
        self.classes = Classes(**checkpoint.get(_CLASSES, {}))
        data = self.attached_data
        if data is None or self.trainer.predicting:
            return
        others = Classes.of(data)
        if self.classes.names and others.names and self.classes != others:
            raise UserError(
                f"was trained on the classes {shortened(self.classes.names)}, and the data has "
                f"{shortened(others.names)}",
                key="--ckpt_path",
            )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers want to be told the step."""
        scheduler.step_update(num_updates=self.global_step)

    def gmacs(self, image_size: tuple[int, int]) -> float:
        """Billions of multiply-accumulates for one picture of (height, width) pixels."""
        raise NotImplementedError

    def count(self, image_size: tuple[int, int]) -> tuple[int, float]:
        """Parameters, and billions of multiply-accumulates for one picture of (height, width) pixels.

        Raises:
            UserError: the backbone does not take pictures of this size.
        """
        try:
            return count_parameters(self.model), self.gmacs(image_size)
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = image_size
            raise UserError(
                f"{self.hparams['backbone']} does not take pictures of {height} x {width} px: {error}",
                key="model.backbone",
            ) from error
