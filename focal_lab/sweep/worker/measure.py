"""The body of a process that answers a plan's questions: are configurations right, what do they cost.

Importing this module loads torch and Lightning; the fork server has them.
"""

import math
import os
import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import log_file
from focal_lab.sweep.run_folder.provenance import hardware
from focal_lab.sweep.worker.survey import Check, Machine, Measure, Measured
from focal_lab.sweep.worker.train import redirect_output
from focal_lab.training.cli import check_config
from focal_lab.training.cost import build_unweighted, count_config, find_class
from focal_lab.training.fit import build, peak_memory_mb
from focal_lab.training.malloc import keep_freed_memory

# Enough steps for a median, unless steps are slow; the first ones are no measure.
_SECONDS, _LEAST_BATCHES, _SLOW_SECONDS = 3.0, 3, 60.0
_VAL_BATCHES, _TEST_BATCHES = 4, 3
_MEGABYTE = 2**20


def survey_child(order: Check | Measure, connection: Connection) -> None:
    """Do what was asked; the messages are told in `survey`."""
    if isinstance(order, Check):
        _check(order, connection)
    else:
        _measure(order, connection)


def _check(order: Check, connection: Connection) -> None:
    torch.set_num_threads(1)
    connection.send(("machine", _machine()))
    absent: dict[str, str | None] = {}
    for number, config in enumerate(order.configs):
        try:
            if number in order.counted:
                counted = count_config(config)
                size, source = counted.evaluated.size, counted.evaluated.source
                connection.send(("counted", (number, counted.params, counted.gmacs, size, source)))
            else:
                build_unweighted(config)
            refuse_impossible(config)
            data = repr(config["data"])
            if data not in absent:
                absent[data] = absent_data(config)
            if absent[data] is not None:
                connection.send(("absent", (number, absent[data])))
        except UserError as error:
            connection.send(("wrong", (number, str(error))))
        except Exception as error:
            if _is_ours(config["model"]) and _is_ours(config["data"]):
                raise
            connection.send(("wrong", (number, _reason(error))))
    connection.send(("checked", None))


def refuse_impossible(config: Mapping[str, Any]) -> None:
    """Check what else would end a run at its start: options of the data, file of weights, accelerator.

    Raises:
        UserError: one of them cannot be.
    """
    parsed = check_config(config)
    data, model = parsed["data"], parsed["model"]
    if _is_ours(data):  # opens no files before `setup`; others' may
        find_class(data["class_path"])(**data.get("init_args", {}))
    checkpoint = model.get("init_args", {}).get("backbone_checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"{checkpoint}: is not a file", key="model.backbone_checkpoint")
    accelerator = parsed["trainer"].get("accelerator")
    there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not there:
        raise UserError(
            f"{accelerator}: this machine has none; auto takes one if there is one",
            key="trainer.accelerator",
        )


def absent_data(config: Mapping[str, Any]) -> str | None:
    """Which file of a configuration's data is not on this machine.

    Returns:
        None for none, and for data modules without a method `check_files` of their own.
    """
    data = check_config(config)["data"]
    kind = find_class(data["class_path"])
    # one that the user derived from ours may find its files in its own way
    if not hasattr(kind, "check_files") or not (_is_ours(data) or "check_files" in vars(kind)):
        return None
    try:
        kind(**{**(data.get("init_args") or {}), **(data.get("dict_kwargs") or {})}).check_files()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be looked at ({error.strerror})"
    return None


def _is_ours(part: Mapping[str, Any]) -> bool:
    return str(part["class_path"]).startswith("focal_lab.")


def _reason(error: Exception) -> str:
    """An error of the user's own code: where, what kind, and what it says."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"


def _machine() -> Machine:
    devices = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(i).total_memory / _MEGABYTE for i in range(devices)]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MEGABYTE
    return Machine(hardware(), str(torch.__version__), devices, total, min(memory, default=None))


def _measure(order: Measure, connection: Connection) -> None:
    folder = Path(order.folder)
    redirect_output(log_file(folder))
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    if order.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.devices
    try:
        count_config(order.config)  # as a run does
        connection.send(("measured", _run_shortly(order, folder)))
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())
        told = reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"
        connection.send(("failed", told))
        raise SystemExit(1) from error


def _run_shortly(order: Measure, folder: Path) -> Measured:
    """Fit and test as a run does, but for some batches only."""
    trainer = dict(order.config.get("trainer") or {})
    cli = build(dict(order.config) | {"trainer": shortened(trainer)}, folder)
    clock = Clock()
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, cli.datamodule)
    batches = float(cli.trainer.num_training_batches)
    val_batches = count_batches(cli.trainer.val_dataloaders, trainer.get("limit_val_batches", 1.0))
    checkpoint = cli.trainer.checkpoint_callback
    best = checkpoint.best_model_path if checkpoint else ""  # type: ignore[attr-defined]
    cli.trainer.test(cli.model, cli.datamodule, ckpt_path=best or None, verbose=False)
    clock.ended = now()
    test_batches = count_batches(cli.trainer.test_dataloaders, trainer.get("limit_test_batches", 1.0))
    ranks = trainer.get("devices", 1)
    ranks = ranks if isinstance(ranks, int) and ranks > 1 else 1
    return Measured(
        start_up=clock.first - order.begun + clock.slow_start,
        batch=clock.batch,
        batches=math.ceil(batches / ranks) if math.isfinite(batches) else batches,
        accumulated=int(cli.trainer.accumulate_grad_batches),
        val_batch=typical(clock.validation),
        val_batches=math.ceil(val_batches / ranks),
        epoch_end=_rest(clock.trained - clock.stepped, clock.validation),
        validations=count_validations(trainer, batches),
        test=_rest(clock.ended - clock.trained, clock.test),
        test_batch=typical(clock.test),
        test_batches=math.ceil(test_batches / ranks),
        memory_mb=peak_memory_mb(),
    )


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
        # a measurement is not a run that anybody's logger should show
        "logger": changed.get("logger") is not False,
        "devices": 1,
        "strategy": "auto",
        "min_epochs": None,
        "min_steps": None,
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": min(2, changed.get("num_sanity_val_steps", 2)),
    }


def count_validations(trainer: Mapping[str, Any], batches: float) -> float:
    """How many an epoch has."""
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if isinstance(interval, float) and interval > 0:
        return round(1 / interval) / (every or 1)
    if isinstance(interval, int) and interval > 0:
        return batches / interval if every is None else max(1.0, batches // interval) / every
    return 1 / (every or 1)


def count_batches(loaders: Any, limit: Any) -> float:
    """Batches of one loader or several, under Lightning's limit; 0 of those that do not say."""
    total = 0.0
    for loader in loaders if isinstance(loaders, list | tuple) else [loaders] if loaders is not None else []:
        try:
            there = len(loader)
        except TypeError:
            continue
        total += min(there, limit) if isinstance(limit, int) else math.floor(there * (limit or 0))
    return total


@dataclass
class Clock(Callback):
    """Takes times; ends the training when it has enough. Comes after all other callbacks.

    Attributes:
        first: when the first step began.
        steps: when each step was done.
        stepped, trained, ended: when the last step, the fit and the test were over.
        validation, test: seconds of each batch.
    """

    first: float = 0.0
    steps: list[float] = field(default_factory=list)
    stepped: float = 0.0
    trained: float = 0.0
    ended: float = 0.0
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    _mark: float = 0.0

    @property
    def batch(self) -> float:
        """Seconds of a training batch, data and callbacks included; the first ones left out."""
        gaps = [after - before for before, after in zip(self.steps, self.steps[1:], strict=False)]
        return typical(gaps[len(gaps) // 4 :]) if gaps else self.stepped - self.first

    @property
    def slow_start(self) -> float:
        """What the first step took longer than others do."""
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
        """Seconds since the last one: a batch with its data."""
        before, self._mark = self._mark, now()
        return self._mark - before


def typical(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0


def _rest(seconds: float, batches: Sequence[float]) -> float:
    """What is left without the batches, which a first slow one does not make slower."""
    return max(0.0, seconds - len(batches) * typical(batches))


def now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.monotonic()
