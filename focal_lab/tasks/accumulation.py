"""Gradient accumulation to a fixed number of images per optimizer step on any number of devices."""

from dataclasses import dataclass
from typing import Any

from focal_lab.errors import UserError


@dataclass(frozen=True)
class StepSize:
    """The images of an optimizer step: batch size per process, processes, batches accumulated, and the number
    of images the learning rate was chosen for."""

    batch_size: int
    processes: int
    accumulated: int
    wanted: int

    @property
    def images(self) -> int:
        """Images of an optimizer step."""
        return self.batch_size * self.processes * self.accumulated

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rates, which grow with the batch (Goyal et al. 2017, 2.1)."""
        return self.images / self.wanted

    def describe(self, lr: float) -> str:
        """One line: the step and its learning rate; `lr` is the highest, as configured."""
        counts = ((self.processes, "devices"), (self.accumulated, "batches"), (self.batch_size, "images"))
        parts = " x ".join(f"{count} {name}" for count, name in counts if count > 1 or name == "images")
        rate = f"learning rate {lr * self.lr_factor:.3g}"
        if self.images != self.wanted:
            rate += f" ({lr:.3g} is for {self.wanted} images)"
        return f"{self.images} images a step: {parts}; {rate}"


def step_size(batch_size: int, processes: int, wanted: int) -> StepSize:
    """Accumulate the number of batches that comes closest to the wanted number of images; at least one."""
    return StepSize(batch_size, processes, max(1, round(wanted / (batch_size * processes))), wanted)


def accumulate(trainer: Any, wanted: int) -> StepSize:
    """Make a trainer accumulate gradients to `wanted` images per optimizer step.

    Raises:
        UserError: the trainer already accumulates another number, or its data module has no `batch_size`.
    """
    data = getattr(trainer, "datamodule", None)
    batch_size = getattr(data, "batch_size", None)
    if not isinstance(batch_size, int):
        raise UserError(
            f"{type(data).__name__} has no batch_size to compute with (use null, and "
            "trainer.accumulate_grad_batches)",
            key="model.total_batch_size",
        )
    step = step_size(batch_size, trainer.world_size, wanted)
    if trainer.accumulate_grad_batches not in (1, step.accumulated):
        raise UserError(
            f"{trainer.accumulate_grad_batches} contradicts model.total_batch_size, {wanted}, for which "
            f"{step.accumulated} batches are accumulated (leave one of them out)",
            key="trainer.accumulate_grad_batches",
        )
    trainer.accumulate_grad_batches = step.accumulated
    return step
