"""What every training does beside its steps: stops when it diverged, keeps time, can be resumed exactly."""

import csv
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class StopWhenDiverged(Callback):
    """Raises DivergedError on a loss that is not finite, before the weights have learned from it.

    The batch is saved as the network saw it, `diverged.pt` in the trainer's log folder, read by `torch.load`.
    On the CPU every step is looked at; elsewhere only every `log_every_n_steps`, because looking waits for
    the device: there the batch can be a later one than the first that went wrong. After the last step the
    weights are looked at, too.
    """

    def __init__(self) -> None:
        self._batch: Any = None
        self._batch_idx = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._batch_idx = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = trainer.global_step + 1  # the one that it would become
        due = step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if (due or loss.device.type == "cpu") and not math.isfinite(loss.item()):
            saved = self._save(trainer, loss.item())
            raise DivergedError(f"the loss is {loss.item()} at step {step}; lower model.lr{saved}")

    def on_train_batch_end(self, *_: Any) -> None:
        self._batch = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # what the last steps did, which nobody has looked at: evaluated, such weights give some class or none
        for name, weight in pl_module.named_parameters():
            if not torch.isfinite(weight).all():
                raise DivergedError(f"{name} is not finite after the last step; lower model.lr")

    def _save(self, trainer: Trainer, loss: float) -> str:
        """Where the batch lies, for the message; a full disk must not hide what is wrong."""
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.log_dir or trainer.default_root_dir) / f"diverged{rank}.pt"
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        state = {
            "batch": self._batch,
            "batch_idx": self._batch_idx,
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "loss": loss,
            "lr": max(rates, default=0.0),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
        except (OSError, RuntimeError):
            return ""
        return f" (its batch is in {path})"


class ReseedEachEpoch(Callback):
    """Seeds drop path, dropout and augmentation from (seed, epoch).

    A training resumed from an epoch's checkpoint then draws what the undisturbed one would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reseed(self.seed, trainer)


def reseed(seed: int, trainer: Trainer) -> None:
    """Seed all that draws, for the current epoch and process."""
    seed = (seed * 100003 + trainer.current_epoch) * 1009 + trainer.global_rank
    torch.manual_seed(seed)
    # timm's mixup draws from numpy, its augmentation from both
    np.random.seed(seed % 2**32)
    random.seed(seed)


class LogLearningRate(Callback):
    """Logs one scalar, `lr`, whatever the task: the highest rate of all groups of weights.

    Lightning's monitor names a curve after the optimizer and each of its groups, whose number depends on the
    task's recipe.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        due = (trainer.global_step + 1) % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if due and trainer.optimizers:
            pl_module.log("lr", float(max(group["lr"] for group in trainer.optimizers[0].param_groups)))


class Timing(Callback):
    """Measures training; survives a resume, because it is saved with the checkpoint.

    Attributes:
        train_seconds: wall time of the fit, validation included.
        step_seconds: wall time from the start of training epochs to the end of their last step.
        images: training pictures seen, over all processes.
    """

    def __init__(self) -> None:
        self.train_seconds = self.step_seconds = 0.0
        self.images = 0
        self._fit_start = self._epoch_start = 0.0
        self._paused = False

    @property
    def images_per_second(self) -> float:
        """Training pictures per second of training epochs, validation left out."""
        return self.images / self.step_seconds if self.step_seconds else 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._epoch_start:  # resumed within an epoch
            self._epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pictures = batch[0] if isinstance(batch, list | tuple) else batch
        self.images += len(pictures) * trainer.world_size
        if batch_idx + 1 == trainer.num_training_batches:
            # validation at the end of an epoch runs before on_train_epoch_end
            self._end_of_steps()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # of `val_check_interval`, amid an epoch; after its last step the clock has stopped already
        self._paused = bool(self._epoch_start)
        self._end_of_steps()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._paused:
            self._epoch_start, self._paused = time.perf_counter(), False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_of_steps()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_seconds = self._total()

    def state_dict(self) -> dict[str, Any]:
        running = time.perf_counter() - self._epoch_start if self._epoch_start else 0.0
        return {
            "train_seconds": self._total(),
            "step_seconds": self.step_seconds + running,
            "images": self.images,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_seconds = state_dict["train_seconds"]
        self.step_seconds, self.images = state_dict["step_seconds"], state_dict["images"]

    def _total(self) -> float:
        running = time.perf_counter() - self._fit_start if self._fit_start else 0.0
        self._fit_start = 0.0 if not running else time.perf_counter()
        self.train_seconds += running
        return self.train_seconds

    def _end_of_steps(self) -> None:
        if self._epoch_start:
            self.step_seconds += time.perf_counter() - self._epoch_start
            self._epoch_start = 0.0


class WritePredictions(BasePredictionWriter):
    """`focal-lab predict`: one CSV row a picture, with its likeliest classes first.

    The file is `predictions.csv` in the trainer's log folder; with several processes each writes the pictures
    it saw, and `index` tells which they were.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._stream: TextIO | None = None
        self._names: Sequence[str] | None = None
        self._files: Sequence[Path] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        # the checkpoint's: the data may know none, or others
        classes = getattr(pl_module, "classes", None)
        self._names = (classes and classes.names) or getattr(data, "class_names", None)
        self._files = getattr(data, "predict_files", None)
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.log_dir or trainer.default_root_dir) / f"predictions{rank}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115  (closed in on_predict_end)
        csv.writer(self._stream).writerow(["index", "file", "rank", "class", "probability"])

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of one batch."""
        if self._stream is None or not isinstance(prediction, Mapping) or "classes" not in prediction:
            return
        names, files = self._names, self._files
        # a batch has a black picture for one that cannot be read
        unreadable = getattr(
            getattr(getattr(trainer, "predict_dataloaders", None), "dataset", None), "unreadable", ()
        )
        rows = csv.writer(self._stream)
        chosen = zip(prediction["classes"].tolist(), prediction["probabilities"].tolist(), strict=True)
        for index, (classes, probabilities) in zip(batch_indices or [], chosen, strict=True):
            if index in unreadable:
                rows.writerow([index, files[index] if files else "", "", "unreadable", ""])
                continue
            for rank, (label, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
                name = names[label] if names and label < len(names) else label
                rows.writerow([index, files[index] if files else "", rank, name, f"{probability:.4f}"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stream is not None:
            self._stream.close()
            rank_zero_info(f"predictions: {self._stream.name}")
            self._stream = None


class Progress(Callback):
    """Tells a listener where training is, at most every `interval` seconds.

    The end of the first training batch and of each validation are told at once.

    Args:
        send: gets {phase, step, total, epoch, metric} and, where there is one, loss; `first` after the first
            training batch, `validated` after a validation, when `epoch` counts the finished epochs.
        interval: seconds between two messages.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], interval: float = 0.5) -> None:
        self.send, self.interval = send, interval
        self._last = -math.inf
        self._begun = False
        self._total: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # asked while testing, Lightning would load the training data for it
        self._total = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._begun and not self._due():
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        first = {} if self._begun else {"first": True}
        self._begun = True
        self._tell(trainer, pl_module, "fit", loss=float(loss) if isinstance(loss, Tensor) else None, **first)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._due():
            self._tell(trainer, pl_module, "validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            self._tell(
                trainer, pl_module, "validate", validated=True, epoch=trainer.current_epoch + int(ended)
            )

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._due():
            self._tell(trainer, pl_module, "test")

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self.interval

    def _tell(self, trainer: Trainer, module: LightningModule, phase: str, **values: Any) -> None:
        self._last = time.monotonic()
        metric = trainer.callback_metrics.get(str(getattr(module, "monitor", "")))
        self.send(
            {
                "phase": phase,
                "step": trainer.global_step,
                "total": self._total or trainer.global_step,
                "epoch": trainer.current_epoch,
                "metric": None if metric is None else float(metric),
                **values,
            }
        )
