"""Sequential sweeps (`--until-decided`): which runs are needed so far, and which seeds come next."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import RESULT_FILE
from focal_lab.sweep.run_folder.outcome import State, read_outcome

FIRST_SEEDS = 3
# The largest number of seeds: by default, and what the report has thresholds for.
DEFAULT_MOST, LEAST_MAXIMUM, MOST_SEEDS = 16, 4, 50
# A cell of which more seeds than these have failed gets no others.
_MOST_FAILED = 1


@dataclass(frozen=True)
class Comparison:
    """The state of a comparison.

    Attributes:
        name: what is compared, for people.
        seeds: how many it has.
        verdict: as in the report.
        cells: labels of the cells whose seeds it needs.
        chance: the probability that more seeds decide it; None if it is decided, or if they cannot.
        futile: whether that is too small to add seeds.
    """

    name: str
    seeds: int
    verdict: str
    cells: tuple[tuple[str, ...], ...]
    chance: float | None
    futile: bool

    @property
    def is_open(self) -> bool:
        """Whether it gets more seeds."""
        return self.chance is not None and not self.futile


# Decides the comparisons of a plan from the runs in a folder.
Decide = Callable[[Plan, Path], Sequence[Comparison]]


def needed_so_far(plan: Plan, out: Path, asked: Collection[str] = ()) -> Plan:
    """A sequential plan with the runs that are needed so far.

    Args:
        asked: IDs of runs that were found to be needed.

    Returns:
        Runs of the first three seeds, those that were asked for, and those that are finished.
    """
    first = set(plan.sweep.seeds[:FIRST_SEEDS])
    runs = (
        run
        for run in plan.candidates
        if run.seed in first or run.id in asked or (out / run.id / RESULT_FILE).exists()
    )
    return replace(plan, runs=tuple(runs))


def with_next_seeds(plan: Plan, out: Path, comparisons: Iterable[Comparison], workers: int) -> Plan:
    """The plan with the next seeds of the cells of open comparisons; the same plan if there are none.

    Seeds are added to a cell one by one, or as many as keep the workers busy.
    """
    still_open = [comparison for comparison in comparisons if comparison.is_open]
    cells = {cell for comparison in still_open for cell in comparison.cells}
    failed = _failed_seeds(plan, out)
    tasks = len(plan.sweep.tasks)
    at_once = max(1, -(-workers // max(1, len(cells) * tasks)))
    wanted: dict[tuple[str, ...], int] = {}
    for comparison in still_open:
        lost = set().union(*(failed.get(cell, set()) for cell in comparison.cells))
        if any(len(failed.get(cell, ())) > _MOST_FAILED for cell in comparison.cells):
            continue
        target = comparison.seeds + len(lost) + at_once
        for cell in comparison.cells:
            wanted[cell] = max(wanted.get(cell, 0), target)
    place = {seed: index for index, seed in enumerate(plan.sweep.seeds)}
    needed = {run.id for run in plan.runs}
    needed |= {run.id for run in plan.candidates if place[run.seed] < wanted.get(labels_of(run), 0)}
    return replace(plan, runs=tuple(run for run in plan.candidates if run.id in needed))


def labels_of(run: Run) -> tuple[str, ...]:
    """The labels of a run's cell, which identify it."""
    return tuple(run.cell.labels.values())


def _failed_seeds(plan: Plan, out: Path) -> dict[tuple[str, ...], set[int]]:
    """Cell -> seeds of which a run has no result, although it was needed; where cells are tuned, all runs."""
    found: dict[tuple[str, ...], set[int]] = {}
    finished: dict[tuple[str, ...], set[int]] = {}
    for run in plan.runs:
        ended = read_outcome(out / run.id).state is State.FINISHED
        (finished if ended else found).setdefault(labels_of(run), set()).add(run.seed)
    if plan.sweep.tuning is None:
        return found
    return {cell: seeds - finished.get(cell, set()) for cell, seeds in found.items()}
