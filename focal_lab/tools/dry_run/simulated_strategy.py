"""One device that stands for the first of many: batches, accumulation and schedule are those of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy, Strategy

from focal_lab.errors import UserError


@dataclass(frozen=True)
class Devices:
    """What a configuration asks for.

    Attributes:
        accelerator: as configured, such as auto, cpu or gpu.
        each: devices of a node.
        nodes: machines.
        strategy: how they work together, as configured.
        first: for `trainer.devices`: the one device that a rehearsal uses.
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


def devices_of(trainer: Mapping[str, Any]) -> Devices:
    """The devices of a trainer's configuration; those of `auto` are counted on this machine.

    Raises:
        UserError: `devices` or `num_nodes` is not a number of devices, nor a list of them.
    """
    accelerator, wanted = trainer.get("accelerator") or "auto", trainer.get("devices", "auto")
    name = accelerator if isinstance(accelerator, str) else type(accelerator).__name__
    nodes, strategy = trainer.get("num_nodes") or 1, trainer.get("strategy", "auto")
    first: int | list[int] = 1
    if isinstance(wanted, str) and "," in wanted:
        wanted = [int(one) for one in wanted.split(",") if one.strip()]
    if isinstance(wanted, list) and wanted:
        first, each = [wanted[0]], len(wanted)
    elif wanted in ("auto", "-1", -1):
        each = _count_here(name)
    else:
        each = int(wanted) if str(wanted).isdigit() else 0
    if each < 1 or nodes < 1:
        key = "trainer.devices" if each < 1 else "trainer.num_nodes"
        raise UserError(f"{wanted if each < 1 else nodes} is not a number of them, 1 or more", key=key)
    strategy = _strategy_name(strategy)
    if strategy == "auto" and each * nodes > 1:
        strategy = "ddp"  # what Lightning makes of it
    return Devices(name, each, nodes, strategy, first)


def _count_here(accelerator: str) -> int:
    """What Lightning takes for `auto`: all GPUs, or one processor."""
    return torch.cuda.device_count() or 1 if accelerator in ("auto", "gpu", "cuda") else 1


def _strategy_name(strategy: Any) -> str:
    if isinstance(strategy, str):
        return strategy
    path = strategy.get("class_path") if isinstance(strategy, Mapping) else type(strategy).__name__
    return str(path).rpartition(".")[2]


class FirstOfMany(ParallelStrategy):
    """Does the work of the first process of many, alone: the others are only counted.

    Samplers, accumulation and schedules see all processes; what is exchanged between them is this one's own.

    Args:
        processes: how many there are.
    """

    is_distributed = True  # lets Lightning divide the data

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.processes = processes

    @property
    def root_device(self) -> torch.device:
        """The one that works."""
        assert self.parallel_devices
        return self.parallel_devices[0]

    @property
    def global_rank(self) -> int:
        return 0

    @property
    def local_rank(self) -> int:
        return 0

    @property
    def node_rank(self) -> int:
        return 0

    @property
    def world_size(self) -> int:
        return self.processes

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """The share of the data that is the first process's."""
        return {"num_replicas": self.processes, "rank": 0}

    def model_to_device(self) -> None:
        assert self.model is not None
        self.model.to(self.root_device)

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return decision

    def all_gather(self, tensor: torch.Tensor, group: Any = None, sync_grads: bool = False) -> torch.Tensor:
        return tensor

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        return None

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj

    def teardown(self) -> None:
        Strategy.teardown(self)  # there is no group of processes to leave
