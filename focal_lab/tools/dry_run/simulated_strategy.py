"""Simulates the first of several devices: batches, accumulation and schedule are those of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy, SingleDeviceStrategy

from focal_lab.errors import UserError


@dataclass(frozen=True)
class ConfiguredDevices:
    """The devices that a configuration requests.

    Attributes:
        each: devices of a node.
        strategy: as configured.
        first: for `trainer.devices`: the one device that a dry run uses.
    """

    accelerator: str
    each: int
    nodes: int
    strategy: str
    first: int | list[int]

    @property
    def count(self) -> int:
        """All devices."""
        return self.each * self.nodes


def configured_devices(trainer: Mapping[str, Any]) -> ConfiguredDevices:
    """The devices of a trainer's configuration; those of `auto` are counted on this machine.

    Raises:
        UserError: `devices` or `num_nodes` is neither a number of devices nor a list of them.
    """
    accelerator = _name(trainer.get("accelerator") or "auto")
    wanted, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
    if isinstance(wanted, str) and "," in wanted:
        wanted = [int(one) for one in wanted.split(",") if one.strip()]
    first = [wanted[0]] if isinstance(wanted, list) and wanted else 1
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
    return ConfiguredDevices(accelerator, each, nodes, strategy, first)


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value
    path = value.get("class_path") if isinstance(value, Mapping) else type(value).__name__
    return str(path).rpartition(".")[2]


class FirstOfMany(SingleDeviceStrategy, ParallelStrategy):
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
