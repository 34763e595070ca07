"""A rehearsal as a table of two columns, and the assumptions that it rests on."""

import math
import shutil
from collections.abc import Iterator

from focal_lab.report.formats.terminal import note_text
from focal_lab.sweep.estimate.makespan import clock
from focal_lab.sweep.run_folder.disk_space import size_words
from focal_lab.tools.dry_run.summary import Rehearsed
from focal_lab.utils.text_table import TextColumn, aligned

Row = tuple[str, str]


def dry_run_text(found: Rehearsed, *, terminal: bool) -> str:
    """The table and its notes.

    Args:
        terminal: fold to the window; a pipe gets long lines.
    """
    width = shutil.get_terminal_size((100, 24)).columns if terminal else None
    rows = [*_data(found), *_model(found), *_step(found), *_memory(found), *_time(found), *_disk(found)]
    names, values = zip(*rows, strict=True)
    table = aligned([TextColumn("", names), TextColumn("what fit would do", values, folds=True)], width)
    return table + note_text(_notes(found), width)


def _data(found: Rehearsed) -> Iterator[Row]:
    pictures = "pictures not counted" if found.pictures is None else f"{found.pictures:,} pictures"
    classes = f", {found.classes} classes" if found.classes else ""
    share = " on each device" if found.devices.count > 1 else ""
    yield "data", f"{pictures}{classes}, {_count(found.batches, 'batch', 'batches')} an epoch{share}"
    for name in ("input", "target", "output"):
        if name in found.seen:
            yield name, found.seen[name]
    answer = found.seen.get("answer")
    if answer not in (None, found.seen.get("output")):
        yield "output, validating", answer


def _model(found: Rehearsed) -> Iterator[Row]:
    fewer = f", {found.trainable / 1e6:,.3f} M of them trained" if found.trainable != found.params else ""
    yield "parameters", f"{found.params / 1e6:,.3f} M in {found.backbone} with its head{fewer}"
    if found.gmacs is not None and found.size is not None:
        yield "GMACs", f"{found.gmacs:.4g} an image, evaluated at {found.size[0]} x {found.size[1]} px"


def _step(found: Rehearsed) -> Iterator[Row]:
    devices = found.devices
    nodes = f" on {devices.nodes} machines" if devices.nodes > 1 else ""
    many = f"{devices.count} ({devices.accelerator}, {devices.strategy}){nodes}; rehearsed on one: "
    yield "devices", f"{many if devices.count > 1 else ''}{found.device}"
    yield "precision", found.precision
    accumulated = found.measured.accumulated
    made = [(devices.count, "devices"), (accumulated, "batches accumulated")]
    parts = [f"{count} {name}" for count, name in made if count > 1]
    if found.batch_size:
        each = found.batch_size
        total = each * devices.count * accumulated
        told = " x ".join([*parts, f"{each} pictures"])
        yield "optimizer step", f"{total:,} pictures" + (f" = {told}" if parts else "")
    elif parts:
        yield "optimizer step", " x ".join(parts)
    yield "optimizer", _groups(found)
    if found.rates:
        rates = found.rates
        yield (
            "learning rate",
            f"{rates.start:.3g} at first, {rates.peak:.3g} at step {rates.peak_step:,}, {rates.end:.3g} at "
            f"last, step {found.steps - 1:,} ({rates.schedule})",
        )


def _groups(found: Rehearsed) -> str:
    """Numbers by their decay, and the range of factors on the learning rate."""
    by_decay: dict[float, int] = {}
    for count, decay, _ in found.groups:
        by_decay[decay] = by_decay.get(decay, 0) + count
    told = ", ".join(
        f"{count / 1e6:,.3f} M {f'with decay {decay:g}' if decay else 'without decay'}"
        for decay, count in sorted(by_decay.items(), reverse=True)
    )
    factors = [factor for *_, factor in found.groups]
    layers = (
        f"; rates from {min(factors):.3g} to {max(factors):.3g} of it" if min(factors) != max(factors) else ""
    )
    return f"{found.optimizer}, {_count(len(found.groups), 'group')}: {told}{layers}"


def _memory(found: Rehearsed) -> Iterator[Row]:
    parts = {"weights": found.weights, "gradients": found.gradients, "optimizer": found.states}
    told = ", ".join(f"{name} {size_words(count)}" for name, count in parts.items())
    if found.device_memory is None:
        yield "memory", f"{told}; the process at its peak {size_words(int(found.peak))}"
    else:
        there = size_words(found.device_memory)
        yield "memory", f"{told}; at its peak {size_words(int(found.peak))} of {there} on the device"


def _time(found: Rehearsed) -> Iterator[Row]:
    loader = f"{_seconds(found.loader)} loader alone" if found.loader is not None else "loader not measured"
    timed = found.measured
    together = f"{_seconds(timed.batch)} together"
    yield "time a batch", f"{_seconds(found.network)} network, {loader}, {together}"
    if timed.accumulated > 1:
        yield "time a step", f"{_seconds(timed.batch * timed.accumulated)} of {timed.accumulated} batches"
    if timed.val_batches:
        yield (
            "time a validation",
            f"{_short(timed.val_batches * timed.val_batch + timed.epoch_end)} "
            f"({_count(timed.val_batches, 'batch', 'batches')}), {timed.validations:g} an epoch",
        )
    yield (
        "time an epoch",
        _short(found.epoch_seconds) if math.isfinite(timed.batches) else "data without an end",
    )
    unit = found.unit if found.length != 1 else found.unit.removesuffix("s")
    hours = f"{found.total_seconds / 3600:.2f} hours" if found.total_seconds >= 36 else "under a minute"
    yield "time in all", f"{clock(found.total_seconds)} for {found.length:g} {unit} ({hours})"


def _disk(found: Rehearsed) -> Iterator[Row]:
    if not found.kept:
        yield "checkpoints", f"none are kept (one would be {size_words(found.checkpoint)})"
        return
    needed, free = found.disk
    enough = "" if needed <= free else ": NOT ENOUGH"
    yield (
        "checkpoints",
        f"{found.kept} x {size_words(found.checkpoint)}, and one more while it is written: "
        f"{size_words(needed)} of {size_words(free)} free{enough}",
    )


def _notes(found: Rehearsed) -> Iterator[str]:
    yield "Nothing was written. Times are of a few steps on this machine as busy as it is now."
    devices = found.devices
    if devices.count > 1:
        yield (
            f"One device did the work of the first of {devices.count}: its share of the data, and their "
            f"steps. Assumed: the others are as fast, and what they exchange ({devices.strategy}) costs "
            "neither time nor memory."
        )
        if "fsdp" in devices.strategy.lower() or "deepspeed" in devices.strategy.lower():
            yield "The weights lay on one device as a whole; divided among all they take less of each."
    if found.cut:
        yield (
            f"Accumulating {found.measured.accumulated} batches would have taken too long here: the "
            "optimizer stepped after fewer."
        )
    if found.resumed_at != (0, 0):
        epochs, steps = found.resumed_at
        yield f"It goes on after {_count(epochs, 'epoch')}, {_count(steps, 'step')}; the time is of the rest."
    if found.longest is not None and found.total_seconds == found.longest:
        yield "trainer.max_time ends it before its schedule does."


def _count(number: float, one: str, many: str | None = None) -> str:
    return (
        f"{number:,.0f} {one if number == 1 else many or f'{one}s'}"
        if math.isfinite(number)
        else f"endless {one}s"
    )


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _short(seconds: float) -> str:
    return _seconds(seconds) if seconds < 10 else clock(seconds)
