"""What finished runs took: those of the same shape, and of other networks trained on the same data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from focal_lab.sweep.estimate.equivalence import kin_of, length_of, shape_of
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import Result


@dataclass(frozen=True)
class Finished:
    """A finished run: how long it was, how long it took."""

    result: Result
    shape: str
    unit: str
    length: float
    seconds: float
    memory_mb: float

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that ran."""
        return self.result.config

    def as_run(self) -> Run:
        """A run that trains it once more."""
        result = self.result
        return Run(result.run, Cell({}, {}), result.task, result.seed, result.config, result.identity)


@dataclass
class FinishedTimes:
    """Finished runs that say how long others take.

    Attributes:
        of_shape: shape -> runs of it, of any length.
        references: kin -> runs of one other network of that kin, of which most have finished.
    """

    of_shape: dict[str, list[Finished]] = field(default_factory=dict)
    references: dict[str, list[Finished]] = field(default_factory=dict)


def finished_times(
    kins: Mapping[str, str], results: Iterable[Result], out: Path, hardware: str
) -> FinishedTimes:
    """Finished runs on this hardware.

    Those of other sweeps are looked at only where this one's do not have every shape.

    Args:
        kins: shape -> kin of what is to be estimated.
        results: of the plan.
        out: folder of all runs.
        hardware: as results name it.
    """
    found = FinishedTimes()
    alike: dict[str, dict[str, list[Finished]]] = {}
    wanted = set(kins.values())

    def add(result: Result) -> None:
        if result.hardware != hardware:
            return
        shape, kin = (named(result.identity, result.config) for named in (shape_of, kin_of))
        one = Finished(result, shape, *length_of(result.config), seconds_taken(result), result.peak_memory_mb)
        if shape in kins:
            found.of_shape.setdefault(shape, []).append(one)
        if kin in wanted:
            alike.setdefault(kin, {}).setdefault(shape, []).append(one)

    ours = set()
    for result in results:
        ours.add(result.run)
        add(result)
    if kins.keys() - found.of_shape.keys():
        for folder in run_folders(out):
            outcome = read_outcome(folder) if folder.name not in ours else None
            if outcome is not None and outcome.result is not None:
                try:
                    add(outcome.result)
                except (AttributeError, KeyError, TypeError):
                    continue  # a result that is not one of a sweep's
    for kin, shapes in alike.items():
        found.references[kin] = max(shapes.values(), key=len)
    return found


def seconds_taken(result: Result) -> float:
    """Seconds of a finished run; one that was resumed trained for longer than its last attempt."""
    try:
        begin, end = (datetime.fromisoformat(when) for when in (result.started, result.finished))
        return max((end - begin).total_seconds(), result.train_seconds)
    except (TypeError, ValueError):
        return result.train_seconds
