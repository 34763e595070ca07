"""The table of a dry run: rows of two columns, and notes on what they assume."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from focal_lab.sweep.estimate.equivalence import length_of, time_limit
from focal_lab.sweep.worker.request import StepTimes
from focal_lab.tasks.base import Task
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.optimizer import Schedule
from focal_lab.tools.dry_run.rehearsal import RehearsalCLI
from focal_lab.tools.dry_run.watch import VALIDATING, Watch
from focal_lab.utils.units import clock, size

Row = tuple[str, str]


@dataclass(frozen=True)
class Summary:
    """The results of a dry run.

    Attributes:
        times: of the training, without a test.
        loader: seconds of a batch from the loader alone; None where it was not timed.
        peak: highest memory in bytes, allocated on the device or resident in the process.
        checkpoints: how many are kept.
        free: bytes on their disk.
    """

    cli: RehearsalCLI
    watch: Watch
    times: StepTimes
    loader: float | None
    peak: float
    checkpoints: int
    free: int

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's states."""
        optimizers: Any = self.cli.trainer.optimizers
        values = (value for one in optimizers for state in one.state.values() for value in state.values())
        return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint."""
        return _bytes(self.cli.model.state_dict().values()) + self.optimizer_bytes

    @property
    def disk(self) -> int:
        """Bytes that the checkpoints need; one more is there while a file is replaced."""
        return (self.checkpoints + bool(self.checkpoints)) * self.checkpoint

    @property
    def left(self) -> tuple[str, float]:
        """Epochs or optimizer steps left to train: unit and count."""
        unit, length = length_of({"trainer": self.cli.asked})
        return unit, max(0, length - self.watch.resumed_at[0 if unit == "epochs" else 1])

    @property
    def seconds(self) -> tuple[float, bool]:
        """Seconds left to train, and whether `max_time` ends the training earlier."""
        needed, limit = self.times.seconds(*self.left), time_limit({"trainer": self.cli.asked})
        return min(needed, limit), limit < needed


def rows(found: Summary) -> Iterator[Row]:
    """Data, model, step, memory, time and disk."""
    yield from _data(found)
    yield from _model(found)
    yield from _step(found)
    yield from _rates(found.cli.trainer)
    yield from _costs(found)


def notes(found: Summary) -> Iterator[str]:
    """The assumptions of the table."""
    yield "Nothing was written. Times are from a few steps on this machine under its current load."
    devices, watch = found.cli.devices, found.watch
    if devices.count > 1:
        yield (
            f"One device did the work of the first of {devices.count}, with its share of the data and the "
            f"steps of all. Assumes that the others are as fast and that communication ({devices.strategy}) "
            "costs neither time nor memory."
        )
        if "fsdp" in devices.strategy.lower() or "deepspeed" in devices.strategy.lower():
            yield "All weights were on one device; with sharding, each needs less memory."
    if watch.cut:
        yield (
            f"Accumulating {watch.accumulated} batches would have taken too long here: the optimizer stepped "
            "after fewer."
        )
    if watch.resumed_at != (0, 0):
        epochs, steps = watch.resumed_at
        yield f"Resumes after {_count(epochs, 'epoch')}, {_count(steps, 'step')}; the time is for the rest."
    if found.seconds[1]:
        yield "trainer.max_time ends the training before its schedule does."


def _data(found: Summary) -> Iterator[Row]:
    try:
        images = f"{len(found.cli.trainer.train_dataloader.dataset):,} images"  # type: ignore[union-attr]
    except (AttributeError, TypeError):
        images = "images not counted"
    classes = getattr(found.cli.datamodule, "num_classes", None)
    parts = [images, *([f"{classes} classes"] if classes else [])]
    share = " on each device" if found.cli.devices.count > 1 else ""
    yield "data", f"{', '.join(parts)}, {_count(found.times.batches, 'batch', 'es')} an epoch{share}"
    seen = found.watch.seen
    for name in ("input", "target", "output"):
        if name in seen:
            yield name, seen[name]
    if seen.get(VALIDATING) not in (None, seen.get("output")):
        yield VALIDATING, seen[VALIDATING]


def _model(found: Summary) -> Iterator[Row]:
    model: Any = found.cli.model
    count = sum(parameter.numel() for parameter in model.model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    fewer = f", {trained / 1e6:,.3f} M of them trained" if trained != count else ""
    backbone = model.hparams.get("backbone", type(model).__name__)
    yield "parameters", f"{count / 1e6:,.3f} M in {backbone} with its head{fewer}"
    evaluated = evaluation_size(model, found.cli.datamodule) if isinstance(model, Task) else None
    if evaluated is not None and evaluated.known:
        height, width = evaluated.size
        yield "GMACs", f"{model.gmacs(evaluated.size):.4g} an image, evaluated at {height} x {width} px"


def _step(found: Summary) -> Iterator[Row]:
    trainer: Any = found.cli.trainer
    devices, device = found.cli.devices, trainer.strategy.root_device
    nodes = f" on {devices.nodes} machines" if devices.nodes > 1 else ""
    many = f"{devices.count} ({devices.accelerator}, {devices.strategy}){nodes}; dry run on one: "
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    yield "devices", f"{many if devices.count > 1 else ''}{name}"
    yield "precision", str(trainer.precision)
    batch, accumulated = getattr(found.cli.datamodule, "batch_size", None), found.times.accumulated
    parts = [(devices.count, "devices"), (accumulated, "batches accumulated"), (batch or 1, "images")]
    product = " x ".join(f"{count} {what}" for count, what in parts if count > 1)
    if batch:
        total = f"{batch * devices.count * accumulated:,} images"
        yield "optimizer step", total + (f" = {product}" if " x " in product else "")
    elif product:
        yield "optimizer step", product
    (optimizer, *_) = trainer.optimizers
    by_decay: Counter[float] = Counter()
    for group in optimizer.param_groups:
        by_decay[group.get("weight_decay", 0.0)] += sum(one.numel() for one in group["params"])
    decays = (
        f"{count / 1e6:,.3f} M {f'with decay {decay:g}' if decay else 'without decay'}"
        for decay, count in sorted(by_decay.items(), reverse=True)
    )
    groups = f"{_count(len(optimizer.param_groups), 'group')}: {', '.join(decays)}"
    scales = {float(group.get("lr_scale", 1.0)) for group in optimizer.param_groups}
    if len(scales) > 1:
        groups += f"; rates from {min(scales):.3g} to {max(scales):.3g} of the learning rate"
    yield "optimizer", f"{type(optimizer).__name__}, {groups}"


def _rates(trainer: Any) -> Iterator[Row]:
    """Run the schedule, which is not needed any more, from its first step to its last."""
    configs, steps = trainer.lr_scheduler_configs, int(trainer.estimated_stepping_batches)
    scheduler: Any = configs[0].scheduler if configs else None
    scheduler = scheduler.made if isinstance(scheduler, Schedule) else scheduler
    if not hasattr(scheduler, "step_update") or steps < 1:
        return
    warm = min(steps - 1, int(getattr(scheduler, "warmup_t", 0)))
    found = {}
    for step in sorted({*range(0, steps, max(1, steps // 1000)), warm, steps - 1}):
        scheduler.step_update(step)
        found[step] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
    peak = max(found, key=lambda step: found[step])
    yield (
        "learning rate",
        f"{found[0]:.3g} at first, {found[peak]:.3g} at step {peak:,}, {found[steps - 1]:.3g} at last, "
        f"step {steps - 1:,} ({type(scheduler).__name__})",
    )


def _costs(found: Summary) -> Iterator[Row]:
    times, on_gpu = found.times, found.cli.trainer.strategy.root_device.type == "cuda"
    parameters = list(found.cli.model.parameters())
    weights = _bytes([*parameters, *found.cli.model.buffers()])
    gradients = _bytes(one for one in parameters if one.requires_grad)
    of = f" of {size(torch.cuda.get_device_properties().total_memory)} on the device" if on_gpu else ""
    yield (
        "memory",
        f"weights {size(weights)}, gradients {size(gradients)}, optimizer {size(found.optimizer_bytes)}; "
        f"{'' if on_gpu else 'the process '}at its peak {size(found.peak)}{of}",
    )
    loader = f"{_short(found.loader)} loader alone" if found.loader is not None else "loader not measured"
    together = f"{_short(times.batch)} together"
    yield "time a batch", f"{_short(found.watch.network_seconds)} network, {loader}, {together}"
    if times.accumulated > 1:
        yield "time a step", f"{_short(times.batch * times.accumulated)} of {times.accumulated} batches"
    if times.val_batches:
        batches = _count(times.val_batches, "batch", "es")
        yield "time a validation", f"{_short(times.validation)} ({batches}), {times.validations:g} an epoch"
    epoch = times.batches * times.batch + times.validations * times.validation
    yield "time an epoch", _short(epoch) if math.isfinite(epoch) else "data without an end"
    (seconds, _), (unit, length) = found.seconds, found.left
    hours = f"{seconds / 3600:.2f} hours" if seconds >= 36 else "under a minute"
    yield "time in all", f"{clock(seconds)} for {_count(length, unit.removesuffix('s'))} ({hours})"
    each = size(found.checkpoint)
    kept = f"{found.checkpoints} x {each}, and one more while it is written: {size(found.disk)} of "
    enough = "" if found.disk <= found.free else ": NOT ENOUGH"
    room = f"{kept}{size(found.free)} free{enough}"
    yield "checkpoints", room if found.checkpoints else f"none are kept (one would be {each})"


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _count(number: float, what: str, plural: str = "s") -> str:
    if math.isinf(number):
        return f"endless {what}{plural}"
    return f"{number:,.0f} {what}{'' if number == 1 else plural}"


def _short(seconds: float) -> str:
    if seconds >= 10:
        return clock(seconds)
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
