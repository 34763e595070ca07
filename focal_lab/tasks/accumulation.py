"""Gradient accumulation to a fixed number of images per optimizer step on any number of devices."""

from typing import Any

from focal_lab.errors import UserError


def accumulate(trainer: Any, wanted: int, lr: float) -> tuple[float, str]:
    """Make a trainer accumulate the number of batches that comes closest to `wanted` images per step.

    Args:
        trainer: with its data module.
        wanted: the images that the learning rate was chosen for.
        lr: the highest learning rate, to report.

    Returns:
        The factor on the learning rates, which grow with the batch (Goyal et al. 2017, 2.1), and one line
        about the step.

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
