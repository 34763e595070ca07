"""Builds what `focal-lab fit` builds, on one device and writing nothing to disk."""

import logging
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning import Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from focal_lab.sweep.worker.measure_steps import shortened
from focal_lab.tools.dry_run.simulated_strategy import ConfiguredDevices, FirstOfMany, configured_devices
from focal_lab.training.lightning_cli import FocalCLI

_SHORTENED = (
    "limit_val_batches",
    "min_epochs",
    "min_steps",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
)


class RehearsalCLI(FocalCLI):
    """`fit` without its last step: subclasses run something shorter on what was built.

    Loggers get nothing, checkpoints are not saved, no profiler runs, and all else that a training writes goes
    to a temporary folder.

    Attributes:
        asked: the trainer's configuration, as it was given.
        devices: what it asks for.
    """

    # whether the one device counts as the first of all that are configured
    as_first_of_many: ClassVar[bool] = True

    def __init__(self, args: Sequence[str]) -> None:
        self.asked: dict[str, Any] = {}
        logging.disable(logging.INFO)  # Lightning's lines about files that are not written
        try:
            with tempfile.TemporaryDirectory(prefix="focal-lab-", ignore_cleanup_errors=True) as self._folder:
                super().__init__(args, save_config_callback=None)
        finally:
            logging.disable(logging.NOTSET)

    @abstractmethod
    def rehearse(self, ckpt_path: str | None) -> None:
        """Called with model, data and trainer instead of the fit."""

    def before_instantiate_classes(self) -> None:
        """Drop loggers and profilers, which may write as soon as they are made."""
        config = self.config[self.subcommand]
        self.asked = config.trainer.as_dict()
        self.devices: ConfiguredDevices = configured_devices(self.asked)
        config.trainer.logger = config.trainer.profiler = None
        for key, value in self.shorten(self.asked).items():
            config.trainer[key] = value

    def shorten(self, trainer: Mapping[str, Any]) -> dict[str, Any]:
        """The changed part of the trainer's configuration; not its length, which the schedule needs."""
        changed = shortened({key: value for key, value in trainer.items() if value is not None})
        return {name: changed[name] for name in _SHORTENED} | {
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
        # not as an argument, which would change the length of the training and with it the schedule
        trainer.fast_dev_run = True  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        self.rehearse(self.config_init[subcommand].get("ckpt_path"))
