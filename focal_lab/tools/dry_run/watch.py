"""Watches a few training steps: shapes, and the times of the loader and of the network."""

import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from focal_lab.sweep.worker.measure_steps import Clock, now, typical

VALIDATING = "output, validating"
# Seconds: a longer accumulation is cut short; the loader alone is timed for at most so long.
_PATIENCE, _LOADER_SECONDS = 30.0, 10.0


class Watch(Clock):
    """Times batches and notes shapes; ends the training after at least one optimizer step.

    Attributes:
        network: seconds of each batch once the device has it: forward, backward, optimizer.
        seen: shapes of input, target and output.
        accumulated: batches of an optimizer step, as configured.
        cut: whether the optimizer stepped before it had that many.
        resumed_at: epochs and optimizer steps that a checkpoint had done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network: list[float] = []
        self.seen: dict[str, str] = {}
        self.accumulated = 1
        self.cut = False
        self.resumed_at = (0, 0)
        self._begun = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.accumulated = trainer.accumulate_grad_batches
        self.resumed_at = trainer.current_epoch, trainer.global_step

        def note(module: Any, arguments: Any, output: Any) -> None:
            self.seen.setdefault("output" if module.training else VALIDATING, describe(output))

        network: Any = pl_module.model
        network.register_forward_hook(note)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        parts = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (batch,)
        for name, part in zip(("input", "target"), parts, strict=False):
            self.seen.setdefault(name, describe(part))
        self._begun = now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.network.append(self.stepped - self._begun)
        if trainer.global_step > self.resumed_at[1]:
            return
        trainer.should_stop = False
        each = (self.stepped - self.first) / len(self.steps)
        if not self.cut and each * self.accumulated > _PATIENCE:
            self.cut = True
            trainer.accumulate_grad_batches = batch_idx + 2  # Lightning's condition for the next batch

    @property
    def network_seconds(self) -> float:
        """Of a batch; without the first ones, as in `batch`."""
        warm = self.network[1:]
        return typical(warm[len(warm) // 4 :] or self.network)


def loader_seconds(loader: Any) -> float | None:
    """Seconds from batch to batch of a loader alone, without what its processes had prefetched.

    Returns:
        None for what is not a DataLoader.
    """
    if not isinstance(loader, DataLoader):
        return None
    early = max(1, loader.num_workers)
    times = [time.monotonic()]
    for _ in loader:
        times.append(time.monotonic())
        if times[-1] - times[0] > _LOADER_SECONDS or len(times) > 4 * early + 1:
            break
    first = min(early, len(times) - 2) if len(times) > 2 else 0
    return (times[-1] - times[first]) / (len(times) - 1 - first) if len(times) > 1 else None


def describe(*values: Any) -> str:
    """Shapes and types of tensors within lists and dictionaries; several with the range of each side."""
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(v, Tensor) and v.ndim == first.ndim for v in values):
        sides = [sorted({*side}) for side in zip(*(value.shape for value in values), strict=True)]
        ranges = " x ".join(str(side[0]) if len(side) == 1 else f"{side[0]}-{side[-1]}" for side in sides)
        return f"{ranges or 'a number,'} {str(first.dtype).removeprefix('torch.')}"
    if isinstance(first, Mapping):
        shared = [name for name in first if all(name in value for value in values)]
        return "; ".join(f"{name} {describe(*(value[name] for value in values))}" for name in shared)
    if len(values) > 1:
        return " or ".join(sorted({describe(value) for value in values}))
    if isinstance(first, tuple) and first:
        return ", ".join(map(describe, first))
    if isinstance(first, list) and first:
        return f"{len(first)} of {describe(*first)}"
    return type(first).__name__
