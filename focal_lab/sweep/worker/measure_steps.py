"""Body of a worker process that measures a few steps of a training. Loads torch and Lightning."""

import math
import os
import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import log_file
from focal_lab.sweep.worker.request import MeasureRequest, StepTimes
from focal_lab.sweep.worker.train import redirect_output
from focal_lab.training.cost import count_config
from focal_lab.training.fit import build, peak_memory_mb
from focal_lab.training.malloc import keep_freed_memory

# Enough steps for a median, unless steps are slow.
_SECONDS, _LEAST_BATCHES, _SLOW_SECONDS = 3.0, 3, 60.0
_VAL_BATCHES, _TEST_BATCHES = 4, 3


def measure_run(request: MeasureRequest) -> StepTimes | str:
    """Measure a configuration; a string says why it could not be measured."""
    folder = Path(request.folder)
    redirect_output(log_file(folder))
    torch.set_num_threads(request.threads)
    keep_freed_memory()
    if request.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = request.devices
    try:
        count_config(request.config)  # as a run does
        return _measure(request, folder)
    except BaseException as error:
        traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return kind + " ".join(str(error).split())


def _measure(request: MeasureRequest, folder: Path) -> StepTimes:
    """Fit and test like a run, but only for some batches."""
    asked = dict(request.config.get("trainer") or {})
    cli = build(dict(request.config) | {"trainer": shortened(asked)}, folder)
    trainer: Any = cli.trainer
    clock = Clock()
    trainer.callbacks.append(clock)
    trainer.fit(cli.model, cli.datamodule)
    checkpoint = trainer.checkpoint_callback
    best = checkpoint.best_model_path if checkpoint else ""
    trainer.test(cli.model, cli.datamodule, ckpt_path=best or None, verbose=False)
    ranks = asked.get("devices", 1)
    return step_times(
        clock,
        trainer,
        asked,
        start_up=clock.first - request.asked + clock.slow_start,
        test=now() - clock.trained,
        ranks=ranks if isinstance(ranks, int) and ranks > 1 else 1,
        memory_mb=peak_memory_mb(),
    )


def step_times(
    clock: "Clock",
    trainer: Any,
    asked: Mapping[str, Any],
    *,
    start_up: float,
    test: float = 0.0,
    ranks: int = 1,
    memory_mb: float = 0.0,
) -> StepTimes:
    """The measurements of a short fit and test.

    Args:
        asked: the trainer's configuration as it was before it was shortened.
        test: seconds of the test.
        ranks: processes that a real training would share the batches between.
    """
    batches = float(trainer.num_training_batches)
    val_batches = math.ceil(count_batches(trainer.val_dataloaders, asked.get("limit_val_batches")) / ranks)
    test_batches = math.ceil(count_batches(trainer.test_dataloaders, asked.get("limit_test_batches")) / ranks)
    return StepTimes(
        start_up=start_up,
        batch=clock.batch,
        batches=math.ceil(batches / ranks) if math.isfinite(batches) else batches,
        accumulated=int(trainer.accumulate_grad_batches),
        validation=_extended(clock.trained - clock.stepped, clock.validation, val_batches),
        val_batches=val_batches,
        validations=count_validations(asked, batches),
        test=_extended(test, clock.test, test_batches),
        memory_mb=memory_mb,
    )


def _extended(seconds: float, measured: Sequence[float], batches: int) -> float:
    """Seconds of an evaluation of so many batches, from a shorter one; a slow first batch counts once."""
    each = typical(measured)
    return max(0.0, seconds - len(measured) * each) + batches * each


def shortened(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings for a measurement: one process, validation right after the last step."""
    changed = {key: value for key, value in trainer.items() if key not in ("val_check_interval", "max_time")}
    steps = changed.get("max_steps")
    if isinstance(steps, int) and steps >= 0:
        changed["max_steps"] = max(steps, 1000)  # the clock ends the training, not the last step
    if changed.get("max_epochs") == 0:
        changed["max_epochs"] = 1
    for name, most in (("limit_val_batches", _VAL_BATCHES), ("limit_test_batches", _TEST_BATCHES)):
        limit = changed.get(name)
        changed[name] = min(limit, most) if isinstance(limit, int) else 0 if limit == 0 else most
    return changed | {
        # a measurement must not appear in anybody's logger
        "logger": changed.get("logger") is not False,
        "devices": 1,
        "strategy": "auto",
        "min_epochs": None,
        "min_steps": None,
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": min(2, changed.get("num_sanity_val_steps", 2)),
    }


def count_validations(trainer: Mapping[str, Any], batches: float) -> float:
    """Number of validations in an epoch of this many batches."""
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if isinstance(interval, float) and interval > 0:
        return round(1 / interval) / (every or 1)
    if isinstance(interval, int) and interval > 0:
        return batches / interval if every is None else max(1.0, batches // interval) / every
    return 1 / (every or 1)


def count_batches(loaders: Any, limit: float | None) -> float:
    """Batches of one loader or several, under Lightning's limit; 0 for those without a length."""
    total = 0.0
    for loader in loaders if isinstance(loaders, list | tuple) else [loaders] if loaders is not None else []:
        try:
            there = len(loader)
        except TypeError:
            continue
        most = 1.0 if limit is None else limit
        total += min(there, most) if isinstance(most, int) else math.floor(there * most)
    return total


@dataclass
class Clock(Callback):
    """Times batches and ends the training when it has enough; must be the last callback.

    Attributes:
        first: when the first step began.
        steps: when each step was done.
        stepped, trained: when the last step and the fit were over.
        validation, test: seconds of each batch.
    """

    first: float = 0.0
    steps: list[float] = field(default_factory=list)
    stepped: float = 0.0
    trained: float = 0.0
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    _mark: float = 0.0

    @property
    def batch(self) -> float:
        """Seconds of a training batch, data and callbacks included; without the first ones."""
        gaps = [after - before for before, after in zip(self.steps, self.steps[1:], strict=False)]
        return typical(gaps[len(gaps) // 4 :]) if gaps else self.stepped - self.first

    @property
    def slow_start(self) -> float:
        """Extra seconds of the first step."""
        return max(0.0, self.steps[0] - self.first - self.batch) if len(self.steps) > 1 else 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.steps:
            self.first = now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stepped = now()
        self.steps.append(self.stepped)
        taken = self.stepped - self.first
        enough = len(self.steps) >= _LEAST_BATCHES and taken >= _SECONDS
        if enough or (len(self.steps) >= 2 and taken >= _SLOW_SECONDS):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = now()
        trainer.should_stop = True

    def on_validation_epoch_start(self, *_: Any) -> None:
        self._mark = now()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validation.append(self._lap())

    def on_test_epoch_start(self, *_: Any) -> None:
        self._mark = now()

    def on_test_batch_end(self, *_: Any) -> None:
        self.test.append(self._lap())

    def _lap(self) -> float:
        before, self._mark = self._mark, now()
        return self._mark - before


def typical(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0


def now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.monotonic()
