"""Callbacks of every training: divergence, learning rate, timing, progress."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor


class DivergedError(RuntimeError):
    """The loss, a weight or a metric is not finite."""


def is_log_step(trainer: Trainer, step: int) -> bool:
    """Whether `step` is a multiple of `log_every_n_steps`."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step % max(1, every) == 0


def highest_lr(trainer: Trainer) -> float:
    """The highest learning rate of all parameter groups; 0 without an optimizer."""
    rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return max(rates, default=0.0)


def loss_of(outputs: Any) -> Tensor | None:
    """The loss in what a training step returned."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return loss if isinstance(loss, Tensor) else None


class StopWhenDiverged(Callback):
    """Raises DivergedError on a NaN or infinite loss, before the weights have learned from it.

    The batch is saved as the network saw it, `diverged.pt` in the trainer's log folder, for `torch.load`. On
    the CPU every step is checked; elsewhere only every `log_every_n_steps`, because checking synchronises
    with the device: the saved batch can then be later than the first bad one. The weights are checked at the
    end.
    """

    def __init__(self) -> None:
        self._batch: Any = None
        self._batch_idx = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._batch_idx = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = trainer.global_step + 1  # the one this batch is for
        if (is_log_step(trainer, step) or loss.device.type == "cpu") and not math.isfinite(loss.item()):
            saved = self._save(trainer, loss.item())
            raise DivergedError(f"the loss is {loss.item()} at step {step}; lower model.lr{saved}")

    def on_train_batch_end(self, *_: Any) -> None:
        self._batch = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # no loss has shown the effect of the last steps
        for name, weight in pl_module.named_parameters():
            if not torch.isfinite(weight).all():
                raise DivergedError(f"{name} is not finite after the last step; lower model.lr")

    def _save(self, trainer: Trainer, loss: float) -> str:
        """The place of the saved batch, for the message; a full disk must not hide the divergence."""
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.log_dir or trainer.default_root_dir) / f"diverged{rank}.pt"
        state = {
            "batch": self._batch,
            "batch_idx": self._batch_idx,
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "loss": loss,
            "lr": highest_lr(trainer),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
        except (OSError, RuntimeError):
            return ""
        return f" (its batch is in {path})"


class LogLearningRate(Callback):
    """Logs one scalar, `lr`, for every task: the highest rate of all parameter groups.

    Lightning's monitor names a curve after the optimizer and each group, whose number depends on the recipe.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.optimizers and is_log_step(trainer, trainer.global_step + 1):
            pl_module.log("lr", highest_lr(trainer))


class Timing(Callback):
    """Measures training time and throughput; saved in checkpoints, so that it survives a resume.

    Attributes:
        train_seconds: wall time of the fit, validation included.
        step_seconds: wall time of training epochs, validation excluded.
        images: training images seen, over all processes.
    """

    def __init__(self) -> None:
        self.train_seconds = self.step_seconds = 0.0
        self.images = 0
        self._fit_mark = self._step_mark = 0.0  # until when time is counted already

    @property
    def images_per_second(self) -> float:
        """Training images per second, validation excluded."""
        return self.images / self.step_seconds if self.step_seconds else 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step_mark = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step_mark = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._step_mark = self._step_mark or time.perf_counter()  # resumed within an epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch[0] if isinstance(batch, list | tuple) else batch) * trainer.world_size
        now = time.perf_counter()
        self.step_seconds += now - self._step_mark
        self._step_mark = now

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count_fit_time()

    def state_dict(self) -> dict[str, Any]:
        self._count_fit_time()
        return {name: getattr(self, name) for name in ("train_seconds", "step_seconds", "images")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_seconds = state_dict["train_seconds"]
        self.step_seconds, self.images = state_dict["step_seconds"], state_dict["images"]

    def _count_fit_time(self) -> None:
        if self._fit_mark:
            now = time.perf_counter()
            self.train_seconds += now - self._fit_mark
            self._fit_mark = now


class Progress(Callback):
    """Sends the training's progress to a listener, at most every `interval` seconds.

    The end of the first training batch and of each validation are sent at once.

    Args:
        send: receives {phase, step, total, epoch, metric} and, if there is one, loss; `first` after the first
            training batch, `validated` after a validation, when `epoch` counts the finished epochs.
        interval: seconds between two messages.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], interval: float = 0.5) -> None:
        self.send, self.interval = send, interval
        self._last = -math.inf
        self._first = True
        self._total: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # during a test, Lightning would load the training data to compute it
        self._total = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._first or self._due():
            loss = loss_of(outputs)
            first = {"first": True} if self._first else {}
            self._first = False
            self._send(trainer, pl_module, "fit", loss=None if loss is None else float(loss), **first)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._due():
            self._send(trainer, pl_module, "validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            epoch = trainer.current_epoch + int(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
            self._send(trainer, pl_module, "validate", validated=True, epoch=epoch)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._due():
            self._send(trainer, pl_module, "test")

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self.interval

    def _send(self, trainer: Trainer, module: LightningModule, phase: str, **values: Any) -> None:
        self._last = time.monotonic()
        metric = trainer.callback_metrics.get(str(getattr(module, "monitor", "")))
        message = {
            "phase": phase,
            "step": trainer.global_step,
            "total": self._total or trainer.global_step,
            "epoch": trainer.current_epoch,
            "metric": None if metric is None else float(metric),
        }
        self.send(message | values)
