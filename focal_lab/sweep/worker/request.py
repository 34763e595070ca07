"""Requests that a command sends to worker processes, and their messages. Does not import torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.reduction import DupFd
from statistics import fmean
from typing import Any, Self


@dataclass(frozen=True)
class TrainRequest:
    """What a worker process needs besides the configuration, which it reads from the run's `config.yaml`.

    Attributes:
        folder: the run's.
        identity: what the run ID is a hash of.
        git: state of the code when the run was claimed.
        threads: CPU threads that torch may use.
        devices: GPUs of the process, as CUDA_VISIBLE_DEVICES names them; None leaves that to the
            configuration.
        rank, ranks, port: which process of how many this is, and where they meet.
        lock: the run's lock, which the process holds until it exits.
    """

    folder: str
    identity: dict[str, Any]
    git: dict[str, Any]
    threads: int
    devices: str | None = None
    rank: int = 0
    ranks: int = 1
    port: int = 0
    lock: "SharedLock | None" = None


class SharedLock:
    """A file lock that a worker process keeps when the process that acquired it has exited."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherit_lock, (DupFd(self.descriptor),)


def _inherit_lock(duplicate: Any) -> SharedLock:
    return SharedLock(duplicate.detach())


@dataclass(frozen=True)
class CheckRequest:
    """Check configurations, and count those at `counted`.

    Messages are (kind, value): `machine` with a MachineSpecs, `counted` with (number, parameters, GMACs,
    size, its source as in `EvaluationSize`), `wrong` with (number, reason), `absent` with (number, which file
    of its data is missing), and last `checked`.
    """

    configs: tuple[dict[str, Any], ...]
    counted: frozenset[int]


@dataclass(frozen=True)
class MeasureRequest:
    """Measure a configuration in a few steps. Messages are `measured` with a StepTimes, or `failed` with why.

    Attributes:
        folder: an empty one.
        asked: `time.monotonic()` when the process was asked for.
        devices: as in `TrainRequest`.
    """

    config: dict[str, Any]
    folder: str
    threads: int
    asked: float
    devices: str | None = None


@dataclass(frozen=True)
class MachineSpecs:
    """The machine that a plan is checked on.

    Attributes:
        hardware: as in results.
        torch: its version.
        devices: GPUs that torch sees.
        memory_mb: of the machine.
        device_memory_mb: of the smallest GPU; None without one.
    """

    hardware: str
    torch: str
    devices: int
    memory_mb: float
    device_memory_mb: float | None


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a run, and how many of each there are.

    Attributes:
        start_up: from asking for the process to the first step, and the first step's own delay.
        batch: one training batch, with its data.
        batches: training batches of an epoch; infinite for data without an end.
        accumulated: batches of an optimizer step.
        epoch_end: what comes with each validation: metrics, checkpoints.
        validations: per epoch.
        test: what comes with the test: metrics, loading the best checkpoint.
        memory_mb: peak, as in results.
    """

    start_up: float
    batch: float
    batches: float
    accumulated: int
    val_batch: float
    val_batches: float
    epoch_end: float
    validations: float
    test: float
    test_batch: float
    test_batches: float
    memory_mb: float

    @classmethod
    def mean(cls, times: Sequence[Self]) -> Self:
        """Mean of several measurements; the highest memory."""
        values: dict[str, Any] = {
            name: fmean(getattr(one, name) for one in times) for name in asdict(times[0])
        }
        highest = max(one.memory_mb for one in times)
        return cls(**values | {"accumulated": times[0].accumulated, "memory_mb": highest})

    def seconds(self, unit: str, length: float) -> float:
        """Seconds of a whole run of the given `epochs` or optimizer `steps`."""
        if length == 0:
            return self.start_up + self.tested
        batches = length * self.accumulated if unit == "steps" else length * self.batches
        epochs = length if unit == "epochs" else batches / self.batches
        validated = epochs * self.validations * (self.val_batches * self.val_batch + self.epoch_end)
        return self.start_up + batches * self.batch + validated + self.tested

    @property
    def tested(self) -> float:
        """Seconds of the test."""
        return self.test + self.test_batches * self.test_batch
