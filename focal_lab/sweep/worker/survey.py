"""What a plan asks of a warm process before anything is trained, and what comes back. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Check:
    """Check configurations; those at `counted` are counted, too.

    Messages are (kind, value): `machine` with a Machine, `counted` with (number, parameters, GMACs, size
    and where it is from, as in `EvaluationSize`), `wrong` with (number, why), `absent` with (number, which
    file of its data is not there), and last `checked`.
    """

    configs: tuple[dict[str, Any], ...]
    counted: frozenset[int]


@dataclass(frozen=True)
class Measure:
    """Measure a configuration in a few steps.

    Messages are `measured` with a Measured, or `failed` with why not.

    Attributes:
        folder: an empty one.
        begun: `time.monotonic()` when the process was asked for.
        devices: as in `Order`.
    """

    config: dict[str, Any]
    folder: str
    threads: int
    begun: float
    devices: str | None = None


@dataclass(frozen=True)
class Machine:
    """Where it is measured.

    Attributes:
        hardware: as results name it.
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
class Measured:
    """What a configuration's parts take: seconds, and how many of each there are.

    Attributes:
        start_up: from asking for the process to the first step, and what the first step takes longer.
        batch: one training batch, with its data.
        batches: training batches of an epoch; infinite where the data have no end.
        accumulated: batches that make up an optimizer step.
        val_batch, val_batches: one validation batch, and how many a validation has.
        epoch_end: what comes with each validation: metrics, checkpoints.
        validations: per epoch.
        test: what comes with the test: metrics, the best checkpoint.
        test_batch, test_batches: one test batch, and how many there are.
        memory_mb: highest memory, as results name it.
        finished: how many finished runs of other networks corrected the seconds; 0 for what was measured.
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
    finished: int = 0

    def corrected(self, ratio: float, finished: int) -> Self:
        """The same with all seconds multiplied, as so many finished runs say."""
        names = ("start_up", "batch", "val_batch", "epoch_end", "test", "test_batch")
        scaled: dict[str, Any] = {name: ratio * getattr(self, name) for name in names}
        return replace(self, finished=finished, **scaled)

    def seconds(self, unit: str, length: float) -> float:
        """Of a whole run of so many `epochs` or optimizer `steps`."""
        if length == 0:
            return self.start_up + self.tested
        batches = length * self.accumulated if unit == "steps" else length * self.batches
        epochs = length if unit == "epochs" else batches / self.batches
        validations = epochs * self.validations
        validated = validations * (self.val_batches * self.val_batch + self.epoch_end)
        return self.start_up + batches * self.batch + validated + self.tested

    @property
    def tested(self) -> float:
        """Seconds of the test."""
        return self.test + self.test_batches * self.test_batch
