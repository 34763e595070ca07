"""Requests that a command sends to worker processes, and their answers. Does not import torch."""

from dataclasses import dataclass, field
from multiprocessing.reduction import DupFd
from typing import Any


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
    """Check configurations, and count those at `counted`."""

    configs: tuple[dict[str, Any], ...]
    counted: frozenset[int]


@dataclass(frozen=True)
class MeasureRequest:
    """Measure a configuration in a few steps.

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
class Cost:
    """Parameters and multiply-accumulates of a network.

    Attributes:
        params: parameters.
        gmacs: billions of multiply-accumulates for one image as it is evaluated.
        image_size: height and width of that image in px.
        source: of the size: "options", "images", or "assumed".
    """

    params: int
    gmacs: float
    image_size: tuple[int, int]
    source: str


@dataclass
class CheckAnswer:
    """What was found about configurations, by their numbers; the check ends at the first wrong one.

    Attributes:
        machine: where they were checked.
        absent: which file of the data is not on this machine.
        wrong: number of the wrong one, and why.
    """

    machine: MachineSpecs
    costs: dict[int, Cost] = field(default_factory=dict)
    absent: dict[int, str] = field(default_factory=dict)
    wrong: tuple[int, str] | None = None


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a run, and how many of each there are.

    Attributes:
        start_up: from asking for the process to the first step, and the first step's own delay.
        batch: one training batch, with its data.
        batches: training batches of an epoch; infinite for data without an end.
        accumulated: batches of an optimizer step.
        validation: one validation, with what comes with it: metrics, checkpoints.
        val_batches: batches of a validation.
        validations: per epoch.
        test: with what comes with it: metrics, loading the best checkpoint.
        memory_mb: peak, as in results.
    """

    start_up: float
    batch: float
    batches: float
    accumulated: int
    validation: float
    val_batches: float
    validations: float
    test: float
    memory_mb: float

    def seconds(self, unit: str, length: float) -> float:
        """Seconds of a whole run of the given `epochs` or optimizer `steps`."""
        if length == 0:
            return self.start_up + self.test
        batches = length * self.accumulated if unit == "steps" else length * self.batches
        epochs = length if unit == "epochs" else batches / self.batches
        return self.start_up + batches * self.batch + epochs * self.validations * self.validation + self.test
