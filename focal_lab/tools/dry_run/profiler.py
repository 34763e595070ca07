"""What the few steps of a rehearsal show: shapes, and the time of the loader and of the network apart."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from focal_lab.sweep.worker.measure import Clock, now, typical

# Accumulating for longer than this is not rehearsed: the optimizer then steps at once.
_PATIENCE = 30.0
# The loader alone is watched for at most this long.
_LOADER_SECONDS = 10.0


class Watch(Clock):
    """Keeps time and shapes; ends the training after some steps, of which the optimizer makes one at least.

    Attributes:
        network: seconds of each batch from the moment that the device has it: forward, backward, optimizer.
        seen: what goes in and comes out, in words.
        accumulated: batches of an optimizer step, as the training would have them.
        cut: whether the optimizer stepped before it had that many.
        resumed_at: epochs and optimizer steps that were done before this.
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
            self.seen.setdefault("output" if module.training else "answer", describe(output))

        network: Any = pl_module.model
        network.register_forward_hook(note)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        parts = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (batch, None)
        for name, part in zip(("input", "target"), parts, strict=True):
            if part is not None:
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
        waited, done = self.stepped - self.first, len(self.steps)
        if not self.cut and waited / done * self.accumulated > _PATIENCE:
            self.cut = True
            trainer.accumulate_grad_batches = batch_idx + 2  # Lightning's condition for the next batch

    @property
    def network_seconds(self) -> float:
        """Of a batch; the same first ones are left out as of `batch`."""
        warm = self.network[1:]
        return typical(warm[len(warm) // 4 :] or self.network)


def loader_seconds(loader: Any) -> float | None:
    """Seconds from one batch to the next of a loader that nobody keeps waiting; None if it is no loader.

    What its processes had prepared when the first batch was asked for does not count.
    """
    if not isinstance(loader, DataLoader):
        return None
    begun = time.monotonic()
    batches = iter(loader)
    early, times = max(1, loader.num_workers), []
    try:
        for _ in batches:
            times.append(time.monotonic())
            if times[-1] - begun > _LOADER_SECONDS or len(times) > 4 * early:
                break
    finally:
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
    kept = times[min(early, len(times) - 1) - 1 :] if len(times) > 1 else [begun, *times]
    return (kept[-1] - kept[0]) / (len(kept) - 1) if len(kept) > 1 else None


def describe(value: Any) -> str:
    """Shapes and types of tensors within lists and dictionaries, in a few words."""
    if isinstance(value, Tensor):
        return _tensors([value])
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {describe(part)}" for name, part in value.items())
    if isinstance(value, list | tuple) and value:
        if isinstance(value, tuple):
            return ", ".join(describe(part) for part in value)
        return f"{len(value)} of {_together(value)}"
    return type(value).__name__


def _together(values: Sequence[Any]) -> str:
    """Values of one kind, with the range of each side."""
    first = values[0]
    if isinstance(first, Mapping):
        shared = [name for name in first if all(name in value for value in values)]
        return "; ".join(f"{name} {_together([value[name] for value in values])}" for name in shared)
    if all(isinstance(value, Tensor) and value.ndim == first.ndim for value in values):
        return _tensors(values)
    return " or ".join(sorted({describe(value) for value in values}))


def _tensors(tensors: Sequence[Tensor]) -> str:
    sides = zip(*(tensor.shape for tensor in tensors), strict=True)
    ranges = [f"{min(side)}" if min(side) == max(side) else f"{min(side)}-{max(side)}" for side in sides]
    kind = str(tensors[0].dtype).removeprefix("torch.")
    return f"{' x '.join(ranges) or 'a number,'} {kind}"


def state_bytes(optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Memory of what optimizers keep of each number that they change."""
    return sum(
        value.nbytes
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
