"""Builds what `focal-lab fit` builds, on one device and without a trace on the disk."""

import logging
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger

from focal_lab.sweep.worker.measure import shortened
from focal_lab.tools.dry_run.simulated_strategy import Devices, FirstOfMany, devices_of
from focal_lab.training.cli import FocalCLI


class RehearsalCLI(FocalCLI):
    """`fit` with everything but its end: the subclass does something shorter with what was built.

    Nothing is written: loggers get nothing, checkpoints are not saved, no profiler is at work, and what else
    a training leaves goes to a folder that does not outlive this one.

    Attributes:
        asked: the trainer's configuration, as it was given.
        devices: what it asks for.
        checkpoint_folders: each ModelCheckpoint, with the folder that a training would fill.
    """

    # whether the one device counts as the first of all that are configured
    as_first_of_many: ClassVar[bool] = True

    def __init__(self, args: Sequence[str]) -> None:
        self.asked: dict[str, Any] = {}
        self.checkpoint_folders: list[tuple[ModelCheckpoint, Path]] = []
        folder = tempfile.TemporaryDirectory(prefix="focal-lab-rehearsal-", ignore_cleanup_errors=True)
        with folder as self._folder, _quiet():
            super().__init__(args, save_config_callback=None)

    @abstractmethod
    def rehearse(self, ckpt_path: str | None) -> None:
        """What is done with model, data and trainer instead of the fit."""

    def before_instantiate_classes(self) -> None:
        """Loggers and profilers may write as soon as they are made: they are not."""
        config = self.config[self.subcommand]
        self.asked = config.trainer.as_dict()
        self.devices: Devices = devices_of(self.asked)
        config.trainer.logger = config.trainer.profiler = None
        for key, value in self.shorten(self.asked).items():
            config.trainer[key] = value

    def shorten(self, trainer: Mapping[str, Any]) -> dict[str, Any]:
        """The changed part of the trainer's configuration; an end of its own is left to the schedule."""
        changed = shortened({key: value for key, value in trainer.items() if value is not None})
        names = ("limit_val_batches", "min_epochs", "min_steps", "check_val_every_n_epoch")
        return {name: changed[name] for name in (*names, "num_sanity_val_steps")} | {
            "val_check_interval": None,
            "max_time": None,
            "num_nodes": 1,
            "devices": self.devices.first,
            "strategy": "auto",
            "enable_progress_bar": False,
        }

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with fit's callbacks, for one device, that saves nothing."""
        changed: dict[str, Any] = {"default_root_dir": self._folder, "logger": False}
        if self.asked.get("logger") is not False:
            changed["logger"] = DummyLogger()
        if self.as_first_of_many and self.devices.count > 1:
            changed["strategy"] = FirstOfMany(self.devices.count)
        trainer = super().instantiate_trainer(**changed, **kwargs)
        root = Path(self.asked.get("default_root_dir") or ".")
        self.checkpoint_folders = [
            (callback, Path(callback.dirpath or root))
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint)
        ]
        # not as an argument, which would change the length of the training and with it the schedule
        trainer.fast_dev_run = True  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        self.rehearse(self.config_init[subcommand].get("ckpt_path"))


@contextmanager
def _quiet() -> Iterator[None]:
    """What Lightning tells of its own accord stands in the table, or is about files that are not written."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
