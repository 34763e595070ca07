"""Time and memory that runs will take: from finished runs of the same shape, or from a few measured steps.

Measured steps are corrected by finished runs of another network that trained on the same data for as long on
this hardware: it is measured once more beside what is not known, and what it took, over what its steps add up
to, multiplies the others' seconds.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from focal_lab._version import __version__
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.estimate.cache import MEASURED_FILE, keep, recall
from focal_lab.sweep.estimate.equivalence import alike, kin_of, length_of, limits_of, shape_of, time_limit
from focal_lab.sweep.estimate.finished_times import Finished, finished_times, seconds_taken
from focal_lab.sweep.plan.runs import Run, hash_of
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.sweep.worker.survey import Machine, Measure, Measured

# Seconds after which a measurement is given up.
_PATIENCE = 1800.0


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        seconds: from its process's start to its end, beside as many others as the sweep trains at a time.
        memory_mb: highest, as results name it.
        source: what it was taken from: "finished" runs of the same network, or "measured" steps.
        finished: how many finished runs that were, or, of other networks, corrected the measured seconds.
    """

    seconds: float
    memory_mb: float
    source: Literal["finished", "measured"]
    finished: int = 0


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


def estimate_runs(
    runs: Sequence[Run],
    results: Mapping[str, Result],
    places: DeviceSlots,
    machine: Machine,
    out: Path,
    processes: WarmProcesses | None = None,
    told: Callable[[str], object] = lambda text: None,
    absent: Collection[str] = (),
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
        absent: ids of runs whose data are not here: they cannot be measured.
    """
    groups = alike(run for run in runs if run.id not in results)
    shapes = [shape_of(group[0].identity, group[0].config) for group in groups]
    unknown = {shape: group[0] for shape, group in reversed(list(zip(shapes, groups, strict=True)))}
    kins = {shape: kin_of(run.identity, run.config) for shape, run in unknown.items()}
    seen = finished_times(kins, results.values(), out, machine.hardware)
    path = out / MEASURED_FILE
    keys = {shape: _key(shape, places, machine) for shape in unknown}
    measured = _recalled(path, keys)
    missing = [
        shape
        for shape in reversed(unknown)
        if unknown[shape].id not in absent
        and shape not in seen.of_shape
        and (shape not in measured or (kins[shape] in seen.references and not measured[shape].finished))
    ]
    found = Estimates()
    if processes is not None and missing:
        references = {kins[shape]: seen.references.get(kins[shape], []) for shape in missing}
        told(_announcement(len(missing), any(references.values()), places.count))
        crew = {kin: reference[0].as_run() for kin, reference in references.items() if reference}
        new, problems = _measure_all(crew | {shape: unknown[shape] for shape in missing}, places, processes)
        corrected = {
            shape: _corrected(new[shape], references[kins[shape]], new.get(kins[shape]))
            for shape in missing
            if shape in new
        }
        keep(path, {keys[shape]: asdict(one) for shape, one in corrected.items()})
        measured |= corrected
        for shape, reason in problems.items():
            if shape in unknown and shape not in measured:
                found.problems.setdefault(reason, []).append(unknown[shape])
    for name in (run.id for run in runs if run.id in results):
        result = results[name]
        found.runs[name] = Estimate(seconds_taken(result), result.peak_memory_mb, "finished", 1)
    for shape, group in zip(shapes, groups, strict=True):
        estimate = _estimate(group[0], seen.of_shape.get(shape, []), measured.get(shape))
        if estimate is not None:
            found.runs |= dict.fromkeys((run.id for run in group), estimate)
    return found


def _announcement(kinds: int, compared: bool, together: int) -> str:
    each = f", {together} at a time" if together > 1 else ""
    more = ", and of finished ones to correct them by" if compared else ""
    return f"measuring a few steps of {kinds} kind{'s' * (kinds != 1)} of runs{more}{each}"


def _corrected(measured: Measured, reference: Sequence[Finished], again: Measured | None) -> Measured:
    """Measured seconds as finished runs of one other network correct them.

    Args:
        reference: these runs.
        again: what was measured of them beside it; None if that was not possible.
    """
    if again is None or not reference:
        return measured
    expected = _measured_seconds(reference[0].config, again)
    taken = statistics.median(one.seconds for one in reference)
    if not (math.isfinite(expected) and expected > 0 and taken > 0):
        return measured
    return measured.corrected(taken / expected, len(reference))


def _measured_seconds(config: Mapping[str, Any], measured: Measured) -> float:
    """What the parts of a run add up to."""
    most = time_limit(config) + measured.start_up + measured.tested
    return min(most, *(measured.seconds(unit, length) for unit, length in limits_of(config)))


def _estimate(run: Run, seen: Sequence[Finished], measured: Measured | None) -> Estimate | None:
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
        return Estimate(min(statistics.median(scaled), most), memory, "finished", len(scaled))
    if measured is None:
        return None
    seconds = _measured_seconds(run.config, measured)
    if not math.isfinite(seconds):
        return None
    return Estimate(seconds, measured.memory_mb, "measured", measured.finished)


def _key(shape: str, places: DeviceSlots, machine: Machine) -> str:
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
    runs: Mapping[str, Run], places: DeviceSlots, processes: WarmProcesses
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


def _measure(runs: Sequence[Run], places: DeviceSlots, processes: WarmProcesses) -> list[Measured | str]:
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
    mean |= {"finished": 0}
    return Measured(**mean)
