"""The pictures of an optimizer step, the same at any number of devices: gradients are accumulated."""

from dataclasses import dataclass
from typing import Any

from focal_lab.errors import UserError


@dataclass(frozen=True)
class StepSize:
    """How the pictures of an optimizer step come together.

    Attributes:
        batch_size: pictures of a batch in one process.
        processes: how many processes train together.
        accumulated: batches whose gradients are added up.
        wanted: pictures a step that the learning rate was chosen for.
    """

    batch_size: int
    processes: int
    accumulated: int
    wanted: int

    @property
    def pictures(self) -> int:
        """Pictures of an optimizer step."""
        return self.batch_size * self.processes * self.accumulated

    @property
    def lr_factor(self) -> float:
        """What learning rates are multiplied by: they grow with the batch (Goyal et al. 2017, 2.1)."""
        return self.pictures / self.wanted

    def describe(self, lr: float) -> str:
        """One line: how the step is made, and its learning rate.

        Args:
            lr: the highest learning rate, as configured.
        """
        made = " x ".join(
            f"{count} {name}"
            for count, name in (
                (self.processes, "devices"),
                (self.accumulated, "batches"),
                (self.batch_size, "pictures"),
            )
            if count > 1 or name == "pictures"
        )
        rate = f"learning rate {lr * self.lr_factor:.3g}"
        if self.pictures != self.wanted:
            rate += f" ({lr:.3g} is for {self.wanted} pictures)"
        return f"{self.pictures} pictures a step: {made}; {rate}"


def step_size(batch_size: int, processes: int, wanted: int) -> StepSize:
    """Accumulate as many batches as come closest to the wanted number of pictures; at least one."""
    at_once = batch_size * processes
    return StepSize(batch_size, processes, max(1, round(wanted / at_once)), wanted)


def accumulate(trainer: Any, wanted: int) -> StepSize:
    """Make a trainer accumulate gradients to the wanted number of pictures.

    Args:
        trainer: with a data module that has a `batch_size`, pictures a batch and process.
        wanted: pictures of an optimizer step.

    Raises:
        UserError: the trainer accumulates already, or nobody knows the size of a batch.
    """
    data = getattr(trainer, "datamodule", None)
    batch_size = getattr(data, "batch_size", None)
    if not isinstance(batch_size, int):
        raise UserError(
            f"{type(data).__name__} has no batch_size to reckon with (use null, and "
            "trainer.accumulate_grad_batches)",
            key="model.total_batch_size",
        )
    made = step_size(batch_size, trainer.world_size, wanted)
    if trainer.accumulate_grad_batches not in (1, made.accumulated):
        raise UserError(
            f"{trainer.accumulate_grad_batches} contradicts model.total_batch_size, {wanted}, for which "
            f"{made.accumulated} batches are accumulated (leave one of them out)",
            key="trainer.accumulate_grad_batches",
        )
    trainer.accumulate_grad_batches = made.accumulated
    return made
