"""Expected time and memory of runs: from finished runs of the same network, else from measured steps."""

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from focal_lab._version import __version__
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.estimate.equivalence import group_by_cell, length_of, limits_of, shape_of, time_limit
from focal_lab.sweep.plan.runs import Run, hash_of
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.request import MachineSpecs, MeasureRequest, StepTimes
from focal_lab.utils.json_cache import add_to_cache, read_cache
from focal_lab.utils.units import many

MEASURED_FILE = "measured.json"
# Seconds after which a measurement is given up.
_PATIENCE = 1800.0


@dataclass(frozen=True)
class Estimate:
    """The expected time and memory of a run.

    Attributes:
        seconds: of its process, beside as many others as the sweep trains at a time.
        memory_mb: peak, as in results.
        source: "finished" runs of the same network, or "measured" steps.
        finished: number of these finished runs.
    """

    seconds: float
    memory_mb: float
    source: Literal["finished", "measured"]
    finished: int = 0


@dataclass
class Estimates:
    """Estimates by run ID, and why a network could not be measured -> a run of each such network."""

    runs: dict[str, Estimate] = field(default_factory=dict)
    problems: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Run ID -> seconds."""
        return {run: estimate.seconds for run, estimate in self.runs.items()}


def estimate_runs(
    runs: Sequence[Run],
    results: Mapping[str, Result],
    slots: DeviceSlots,
    machine: MachineSpecs,
    out: Path,
    processes: WarmProcesses | None = None,
    absent: Collection[str] = (),
) -> Estimates:
    """Estimate the runs of a plan; finished ones have their actual time.

    Args:
        results: run ID -> result, where there is one.
        slots: where runs will be trained; those trained at the same time slow each other down.
        machine: this one.
        out: folder of the runs, where measurements are cached.
        processes: where to measure what is not known; None to measure nothing.
        absent: IDs of runs whose data are not on this machine: they cannot be measured.
    """
    shapes: dict[str, list[list[Run]]] = {}
    for group in group_by_cell(run for run in runs if run.id not in results):
        shapes.setdefault(shape_of(group[0].identity, group[0].config), []).append(group)
    examples = {shape: groups[0][0] for shape, groups in shapes.items()}
    finished = _finished_runs(shapes, results, out, machine.hardware)
    path = out / MEASURED_FILE
    keys = {
        shape: hash_of([shape, slots.count, slots.threads, machine.hardware, machine.torch, __version__])[:16]
        for shape in examples
    }
    measured = _cached_times(path, keys)
    missing = {
        shape: run
        for shape, run in examples.items()
        if run.id not in absent and not finished[shape] and shape not in measured
    }
    found = Estimates()
    if processes is not None and missing:
        together = f", {slots.count} at a time" if slots.count > 1 else ""
        print(f"measuring a few steps of {many(len(missing), 'kind')} of runs{together}", file=sys.stderr)
        new, problems = _measure_all(missing, slots, processes)
        add_to_cache(path, {keys[shape]: asdict(times) for shape, times in new.items()})
        measured |= new
        for shape, reason in problems.items():
            found.problems.setdefault(reason, []).append(examples[shape])
    for name, result in results.items():
        found.runs[name] = Estimate(seconds_taken(result), result.peak_memory_mb, "finished", 1)
    for shape, groups in shapes.items():
        for group in groups:
            estimate = _estimate(group[0].config, finished[shape], measured.get(shape))
            if estimate is not None:
                found.runs |= dict.fromkeys((run.id for run in group), estimate)
    return found


def seconds_taken(result: Result) -> float:
    """Seconds of a finished run; a resumed one trained for longer than its last attempt."""
    begin, end = (datetime.fromisoformat(when) for when in (result.started, result.finished))
    return max((end - begin).total_seconds(), result.train_seconds)


def _finished_runs(
    shapes: Collection[str], results: Mapping[str, Result], out: Path, hardware: str
) -> dict[str, list[Result]]:
    """Finished runs on this hardware by shape, of the plan and of other sweeps."""
    found: dict[str, list[Result]] = {shape: [] for shape in shapes}
    others = (read_outcome(folder).result for folder in run_folders(out) if folder.name not in results)
    for result in chain(results.values(), others) if shapes else ():
        if result is not None and result.hardware == hardware:
            with suppress(AttributeError, KeyError, TypeError):  # not a result of a sweep
                found.get(shape_of(result.identity, result.config), []).append(result)
    return found


def _estimate(config: Mapping[str, Any], seen: list[Result], times: StepTimes | None) -> Estimate | None:
    """From finished runs, scaled by their lengths; else from measured steps."""
    unit, length = length_of(config)
    scaled = []
    for result in seen:
        seconds, (own_unit, own_length) = seconds_taken(result), length_of(result.config)
        if own_unit == unit and own_length == length:
            scaled.append(seconds)
        elif own_unit == unit and 0 < own_length < math.inf:
            scaled.append(seconds * length / own_length)
    limit = time_limit(config) + (times.start_up + times.test if times else 0.0)
    if scaled:
        memory = max(result.peak_memory_mb for result in seen)
        return Estimate(min(statistics.median(scaled), limit), memory, "finished", len(scaled))
    if times is None:
        return None
    measured = min(limit, *(times.seconds(unit, length) for unit, length in limits_of(config)))
    return Estimate(measured, times.memory_mb, "measured") if math.isfinite(measured) else None


def _cached_times(path: Path, keys: Mapping[str, str]) -> dict[str, StepTimes]:
    cached = read_cache(path)
    names = {one.name for one in fields(StepTimes)}  # earlier versions measured other parts
    return {
        shape: StepTimes(**cached[key])
        for shape, key in keys.items()
        if isinstance(cached.get(key), dict) and cached[key].keys() == names
    }


def _measure_all(
    runs: Mapping[str, Run], slots: DeviceSlots, processes: WarmProcesses
) -> tuple[dict[str, StepTimes], dict[str, str]]:
    """Measure a run of each shape, as many at a time as will be trained, repeating runs to fill all slots."""
    found: dict[str, StepTimes] = {}
    problems: dict[str, str] = {}
    shapes = list(runs)
    for first in range(0, len(shapes), slots.count):
        together = shapes[first : first + slots.count]
        filled = (together * slots.count)[: slots.count]
        answers = _measure([runs[shape] for shape in filled], slots, processes)
        for shape, answer in zip(together, answers, strict=False):
            if isinstance(answer, StepTimes):
                found[shape] = answer
            else:
                problems[shape] = answer
    return found, problems


def _measure(runs: Sequence[Run], slots: DeviceSlots, processes: WarmProcesses) -> list[StepTimes | str]:
    """Measure runs side by side; a string says why one could not be measured."""
    answers: list[StepTimes | str] = []
    with tempfile.TemporaryDirectory(prefix="focal-lab-measure-", ignore_cleanup_errors=True) as folder:
        started = []
        for slot, run in enumerate(runs):
            own = Path(folder) / str(slot)
            own.mkdir()
            request = MeasureRequest(
                run.config, str(own), slots.threads, time.monotonic(), slots.devices(slot, run)
            )
            started.append(processes.measure(request))
        until = time.monotonic() + _PATIENCE
        try:
            for process, messages in started:
                if not messages.poll(max(0.0, until - time.monotonic())):
                    answers.append(f"took more than {_PATIENCE / 60:.0f} minutes")
                    continue
                try:
                    answers.append(messages.recv())
                except (EOFError, OSError):
                    process.join(5)
                    answers.append(f"its process crashed (exit status {process.exitcode})")
        finally:
            for process, messages in started:
                process.kill()
                process.join()
                messages.close()
    return answers
