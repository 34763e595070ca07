"""What the training of runs adds up to, and whether that is too much."""

from collections.abc import Mapping, Sequence

from focal_lab.errors import UserError
from focal_lab.sweep.estimate.makespan import Job, clock, finish_time
from focal_lab.sweep.plan.runs import Run


def wall_seconds(runs: Sequence[Run], seconds: Mapping[str, float], workers: int) -> float:
    """Until the last of these runs is done, so many at a time; those whose time is not known take none."""
    return finish_time((Job(run.id, seconds.get(run.id, 0.0), run.needs) for run in runs), workers)


def check_budget(budget: float, runs: Sequence[Run], seconds: Mapping[str, float], workers: int) -> None:
    """Hold runs that are to be trained against a budget.

    Args:
        budget: seconds of wall time.
        runs: what is to be trained, in order.
        seconds: run id -> how long it is expected to take.
        workers: how many at a time.

    Raises:
        UserError: they need more, or nobody knows how long they take.
    """
    unknown = [run for run in runs if run.id not in seconds]
    if unknown:
        raise UserError(
            f"the time of {len(unknown)} of {len(runs)} runs is not known, {unknown[0].cell.name} among them "
            "(let a few steps be measured, or leave the budget out)",
            key="--budget",
        )
    hold(budget, len(runs), wall_seconds(runs, seconds, workers), workers)


def hold(budget: float, runs: int, needed: float, workers: int) -> None:
    """Hold the seconds that so many runs need against a budget.

    Raises:
        UserError: they are more.
    """
    if needed > budget:
        on = f"{workers} worker{'s' * (workers != 1)}"
        raise UserError(
            f"{runs} runs need {clock(needed)} on {on}, more than {clock(budget)} "
            "(fewer seeds, more workers, or a larger budget)",
            key="--budget",
        )
