"""Builds what `focal-lab fit` builds, on one device and writing nothing to disk."""

import logging
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from lightning import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.strategies import ParallelStrategy, SingleDeviceStrategy

from focal_lab.errors import UserError
from focal_lab.sweep.worker.measure_steps import shortened
from focal_lab.training.lightning_cli import FocalCLI

_SHORTENED = (
    "limit_val_batches",
    "min_epochs",
    "min_steps",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
)


@dataclass(frozen=True)
class ConfiguredDevices:
    """The devices that a configuration requests; `first` is the one that a dry run uses."""

    accelerator: str
    count: int
    nodes: int
    strategy: str
    first: int | list[int]


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
        self.devices = configured_devices(self.asked)
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
        kwargs["default_root_dir"] = self._folder
        kwargs["logger"] = self.asked.get("logger") is not False and DummyLogger()
        if self.as_first_of_many and self.devices.count > 1:
            kwargs["strategy"] = _FirstOfMany(self.devices.count)
        trainer = super().instantiate_trainer(**kwargs)
        # not as an argument, which would change the length of the training and with it the schedule
        trainer.fast_dev_run = True  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        self.rehearse(self.config_init[subcommand].get("ckpt_path"))


def configured_devices(trainer: Mapping[str, Any]) -> ConfiguredDevices:
    """The devices of a trainer's configuration; those of `auto` are counted on this machine.

    Raises:
        UserError: `devices` or `num_nodes` is neither a number of devices nor a list of them.
    """
    accelerator = _name(trainer.get("accelerator") or "auto")
    wanted, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
    if isinstance(wanted, str) and "," in wanted:
        wanted = [int(one) for one in wanted.split(",") if one.strip()]
    if isinstance(wanted, list):
        each = len(wanted)
    elif wanted in ("auto", "-1", -1):  # as Lightning does: all GPUs, or one CPU process
        each = torch.cuda.device_count() or 1 if accelerator in ("auto", "gpu", "cuda") else 1
    else:
        each = int(wanted) if str(wanted).isdigit() else 0
    for key, value, count in (("devices", wanted, each), ("num_nodes", nodes, nodes)):
        if count < 1:
            raise UserError(f"{value} is not a number of {key}, 1 or more", key=f"trainer.{key}")
    strategy = _name(trainer.get("strategy") or "auto")
    if strategy == "auto" and each * nodes > 1:
        strategy = "ddp"  # what Lightning chooses
    first = wanted[:1] if isinstance(wanted, list) else 1
    return ConfiguredDevices(accelerator, each * nodes, nodes, strategy, first)


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value
    path = value.get("class_path") if isinstance(value, Mapping) else type(value).__name__
    return str(path).rpartition(".")[2]


class _FirstOfMany(SingleDeviceStrategy, ParallelStrategy):
    """Does the work of the first of several processes; samplers and schedules see all of them."""

    is_distributed = True  # has Lightning divide the data
    global_rank = local_rank = node_rank = 0
    world_size = 1

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.world_size = processes

    @property
    def root_device(self) -> torch.device:
        """The device that works."""
        assert self.parallel_devices
        return self.parallel_devices[0]

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.world_size, "rank": 0}

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return decision
