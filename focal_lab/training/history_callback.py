"""The callback that writes a training's curves."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from focal_lab.training.callbacks import highest_lr, loss_of
from focal_lab.training.history_file import Point, write_history


class History(Callback):
    """Writes `history.json` to `folder` after every validation.

    The points are in every checkpoint, so that a resumed training continues its curves; it must precede the
    callbacks that write checkpoints. The loss is summed on its device, without synchronising before the end
    of an epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: list[Point] = []
        self._losses: Tensor | float = 0.0
        self._count = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = loss_of(outputs)
        if loss is not None:
            exact = torch.float32 if loss.device.type == "mps" else torch.float64
            self._losses = self._losses + loss.detach().to(exact)
            self._count += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        values = {"train/loss": float(self._losses) / self._count} if self._count else {}
        values |= {name: float(value) for name, value in trainer.callback_metrics.items() if "val/" in name}
        if trainer.optimizers:
            values["lr"] = highest_lr(trainer)
        self._losses, self._count = 0.0, 0
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        batches = trainer.num_training_batches
        within = trainer.fit_loop.epoch_loop.batch_progress.current.completed / batches if batches else 1.0
        self.points.append(Point(round(trainer.current_epoch + within, 4), trainer.global_step, finite))
        if trainer.is_global_zero:
            write_history(self.folder, self.points)

    def state_dict(self) -> dict[str, Any]:
        points = [[point.epoch, point.step, point.values] for point in self.points]
        return {"points": points, "losses": float(self._losses), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [Point(epoch, step, dict(values)) for epoch, step, values in state_dict["points"]]
        self._losses, self._count = state_dict["losses"], state_dict["count"]
