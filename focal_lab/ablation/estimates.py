"""Time and memory that runs will take: from finished runs of the same shape, or from a few measured steps."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from focal_lab._version import __version__
from focal_lab.ablation.engine.orders import WarmProcesses
from focal_lab.ablation.engine.places import Places
from focal_lab.ablation.engine.survey import Machine, Measure, Measured
from focal_lab.ablation.outcomes import read_outcome, run_folders
from focal_lab.ablation.remembered import MEASURED_FILE, keep, recall
from focal_lab.ablation.result import Result
from focal_lab.ablation.runs import Run, hash_of
from focal_lab.ablation.shapes import alike, length_of, limits_of, shape_of, time_limit

# Seconds after which a measurement is given up.
_PATIENCE = 1800.0


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        seconds: from its process's start to its end, beside as many others as the sweep trains at a time.
        memory_mb: highest, as results name it.
        source: what it was taken from.
    """

    seconds: float
    memory_mb: float
    source: Literal["finished", "measured"]


@dataclass
class Estimates:
    """Estimates of a plan's runs.

    Attributes:
        runs: run id -> estimate, for those that have one.
        problems: why a shape could not be measured -> a run of each such shape.
    """

    runs: dict[str, Estimate] = field(default_factory=dict)
    problems: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Run id -> seconds."""
        return {run: estimate.seconds for run, estimate in self.runs.items()}


@dataclass(frozen=True)
class _Seen:
    """A finished run: how long it was, how long it took."""

    unit: str
    length: float
    seconds: float
    memory_mb: float


def estimate_runs(
    runs: Sequence[Run],
    results: Mapping[str, Result],
    places: Places,
    machine: Machine,
    out: Path,
    processes: WarmProcesses | None = None,
    told: Callable[[str], object] = lambda text: None,
) -> Estimates:
    """Estimates of runs; of finished ones what they took.

    Args:
        runs: those of a plan.
        results: run id -> result, of those that have one.
        places: where they will be trained; what is trained at the same time makes each slower.
        machine: where this is asked.
        out: folder of the runs, where measurements are kept.
        processes: where to measure what is not known; None to measure nothing.
        told: is told that it is being measured, which takes a while.
    """
    groups = alike(run for run in runs if run.id not in results)
    shapes = [shape_of(group[0].identity, group[0].config) for group in groups]
    seen = _finished(set(shapes), results.values(), out, machine.hardware)
    path = out / MEASURED_FILE
    keys = {shape: _key(shape, places, machine) for shape in shapes}
    measured = _recalled(path, keys)
    missing = {
        shape: group[0]
        for shape, group in reversed(list(zip(shapes, groups, strict=True)))
        if shape not in measured and shape not in seen
    }
    found = Estimates()
    if processes is not None and missing:
        each = f", {places.count} at a time" if places.count > 1 else ""
        kinds = f"{len(missing)} kind{'s' * (len(missing) != 1)} of runs"
        told(f"measuring a few steps of {kinds}{each}")
        new, problems = _measure_all(dict(reversed(missing.items())), places, processes)
        keep(path, {keys[shape]: asdict(one) for shape, one in new.items()})
        measured |= new
        for shape, reason in problems.items():
            found.problems.setdefault(reason, []).append(missing[shape])
    for name in (run.id for run in runs if run.id in results):
        found.runs[name] = Estimate(_taken(results[name]), results[name].peak_memory_mb, "finished")
    for shape, group in zip(shapes, groups, strict=True):
        estimate = _estimate(group[0], seen.get(shape, []), measured.get(shape))
        if estimate is not None:
            found.runs |= dict.fromkeys((run.id for run in group), estimate)
    return found


def _estimate(run: Run, seen: Sequence[_Seen], measured: Measured | None) -> Estimate | None:
    """What finished runs took, scaled by their lengths; else what the measured parts add up to."""
    unit, length = length_of(run.config)
    start_up = measured.start_up if measured else 0.0
    most = time_limit(run.config) + (measured.start_up + measured.tested if measured else 0.0)
    scaled = [
        one.seconds
        if one.length == length
        else min(one.seconds, start_up) + max(0.0, one.seconds - start_up) * length / one.length
        for one in seen
        if one.unit == unit and (one.length == length or 0 < one.length < math.inf)
    ]
    if scaled:
        memory = max(one.memory_mb for one in seen)
        return Estimate(min(statistics.median(scaled), most), memory, "finished")
    if measured is None:
        return None
    seconds = min(most, *(measured.seconds(unit, length) for unit, length in limits_of(run.config)))
    return Estimate(seconds, measured.memory_mb, "measured") if math.isfinite(seconds) else None


def _finished(
    shapes: set[str], results: Iterable[Result], out: Path, hardware: str
) -> dict[str, list[_Seen]]:
    """Finished runs by shape; those of other sweeps are looked at only where this one's do not tell."""
    found: dict[str, list[_Seen]] = {}

    def add(result: Result) -> None:
        shape = shape_of(result.identity, result.config)
        if result.hardware == hardware and shape in shapes:
            unit, length = length_of(result.config)
            seen = _Seen(unit, length, _taken(result), result.peak_memory_mb)
            found.setdefault(shape, []).append(seen)

    ours = set()
    for result in results:
        ours.add(result.run)
        add(result)
    if shapes - found.keys():
        for folder in run_folders(out):
            outcome = read_outcome(folder) if folder.name not in ours else None
            if outcome is not None and outcome.result is not None:
                try:
                    add(outcome.result)
                except (AttributeError, KeyError, TypeError):
                    continue  # a result that is not one of a sweep's
    return found


def _taken(result: Result) -> float:
    """Seconds of a finished run; one that was resumed trained for longer than its last attempt."""
    try:
        begin, end = (datetime.fromisoformat(when) for when in (result.started, result.finished))
        return max((end - begin).total_seconds(), result.train_seconds)
    except (TypeError, ValueError):
        return result.train_seconds


def _key(shape: str, places: Places, machine: Machine) -> str:
    """Under which a measurement is kept: all that it depends on."""
    return hash_of([shape, places.count, places.threads, machine.hardware, machine.torch, __version__])[:16]


def _recalled(path: Path, keys: Mapping[str, str]) -> dict[str, Measured]:
    kept = recall(path)
    found = {}
    for shape, key in keys.items():
        value = kept.get(key)
        names = {one.name for one in fields(Measured)}
        if isinstance(value, dict) and set(value) == names and all(map(_is_number, value.values())):
            found[shape] = Measured(**value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _measure_all(
    runs: Mapping[str, Run], places: Places, processes: WarmProcesses
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure shapes, as many at a time as will be trained, with copies where there are too few."""
    found: dict[str, Measured] = {}
    problems: dict[str, str] = {}
    shapes = list(runs)
    for first in range(0, len(shapes), places.count):
        together = shapes[first : first + places.count]
        crew = [together[i % len(together)] for i in range(places.count)]
        answers = _measure([runs[shape] for shape in crew], places, processes)
        for shape in together:
            ours = [answer for name, answer in zip(crew, answers, strict=True) if name == shape]
            good = [answer for answer in ours if isinstance(answer, Measured)]
            if good:
                found[shape] = _mean(good)
            else:
                problems[shape] = str(ours[0])
    return found, problems


def _measure(runs: Sequence[Run], places: Places, processes: WarmProcesses) -> list[Measured | str]:
    """Measure runs side by side; a text says why one could not be."""
    answers: dict[int, Measured | str] = {}
    with tempfile.TemporaryDirectory(prefix="focal-lab-measure-", ignore_cleanup_errors=True) as folder:
        crew = {}
        for slot, run in enumerate(runs):
            own = Path(folder) / str(slot)
            own.mkdir()
            order = Measure(run.config, str(own), places.threads, time.monotonic(), places.devices(slot, run))
            crew[slot] = processes.measure(order)
        until = time.monotonic() + _PATIENCE
        try:
            while len(answers) < len(crew) and time.monotonic() < until:
                waiting = {crew[slot][1]: slot for slot in crew if slot not in answers}
                for ready in wait(list(waiting), timeout=1.0):
                    slot = waiting[ready]  # type: ignore[index]
                    try:
                        answers[slot] = crew[slot][1].recv()[1]
                    except (EOFError, OSError):
                        crew[slot][0].join(5)
                        answers[slot] = f"its process died (exit status {crew[slot][0].exitcode})"
        finally:
            for process, messages in crew.values():
                process.kill()
                process.join()
                messages.close()
    late = f"took more than {_PATIENCE / 60:.0f} minutes"
    return [answers.get(slot, late) for slot in crew]


def _mean(found: Sequence[Measured]) -> Measured:
    """Times are averages, memory is the highest."""
    values = [asdict(one) for one in found]
    mean: dict[str, Any] = {name: statistics.fmean(value[name] for value in values) for name in values[0]}
    mean |= {"accumulated": found[0].accumulated, "memory_mb": max(one.memory_mb for one in found)}
    return Measured(**mean)
