"""What a rehearsal of a training found out, and what that comes to."""

from dataclasses import dataclass
from pathlib import Path

from focal_lab.sweep.run_folder.disk_space import free_space
from focal_lab.sweep.worker.survey import Measured
from focal_lab.tools.dry_run.simulated_strategy import Devices


@dataclass(frozen=True)
class Rates:
    """The learning rate at both ends of the schedule and at its highest: the highest of all groups."""

    schedule: str
    start: float
    peak: float
    peak_step: int
    end: float


@dataclass(frozen=True)
class Rehearsed:
    """What a dry run found out. Times are in seconds, memory in bytes.

    Attributes:
        pictures: training pictures of an epoch, on all devices; None where the data do not say.
        batches: of an epoch, on one device.
        seen: input, target, output and answer in words.
        size: height and width that the operations are counted for.
        gmacs: billions of multiply-accumulates of one picture; None where they cannot be counted.
        batch_size: pictures of a batch on one device; None where nobody says.
        steps: optimizer steps of the whole training.
        groups: of the optimizer: numbers, weight decay, factor on the learning rate.
        peak: highest memory, allocated on the device or resident in the process.
        device_memory: what the device has; None for the processor.
        network: seconds of a batch on the device.
        loader: seconds of a batch from the loader alone.
        unit, length: epochs or optimizer steps that are left to train.
        longest: where `max_time` ends the training.
        checkpoint, kept, folder: size of one, how many will lie there at the end, and where.
        resumed_at: epochs and optimizer steps that a checkpoint had done.
        cut: whether accumulation was not rehearsed to its end.
    """

    devices: Devices
    device: str
    precision: str
    pictures: int | None
    classes: int | None
    batches: float
    seen: dict[str, str]
    backbone: str
    params: int
    trainable: int
    size: tuple[int, int] | None
    gmacs: float | None
    batch_size: int | None
    steps: int
    optimizer: str
    groups: list[tuple[int, float, float]]
    rates: Rates | None
    weights: int
    gradients: int
    states: int
    peak: float
    device_memory: int | None
    network: float
    loader: float | None
    measured: Measured
    unit: str
    length: float
    longest: float | None
    checkpoint: int
    kept: int
    folder: Path
    resumed_at: tuple[int, int]
    cut: bool

    @property
    def epoch_seconds(self) -> float:
        """With its validations and checkpoints."""
        timed = self.measured
        each = timed.val_batches * timed.val_batch + timed.epoch_end
        return timed.batches * timed.batch + timed.validations * each

    @property
    def total_seconds(self) -> float:
        """Of what is left to train; a configured `max_time` ends it earlier."""
        seconds = self.measured.seconds(self.unit, self.length)
        return seconds if self.longest is None else min(seconds, self.longest)

    @property
    def disk(self) -> tuple[int, int]:
        """Bytes that the checkpoints need, one that is being written included, and bytes that are free."""
        return (self.kept + bool(self.kept)) * self.checkpoint, free_space(self.folder)[0]
