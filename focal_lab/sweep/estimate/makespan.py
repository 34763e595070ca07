"""Wall time of a list of runs if each worker takes the next run that is ready, and budgets for it."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from focal_lab.errors import UserError
from focal_lab.utils.units import clock, many


@dataclass(frozen=True)
class Job:
    """A run to train: its seconds, and the run that it waits for."""

    run: str
    seconds: float
    needs: str | None = None


def finish_time(jobs: Iterable[Job], workers: int, busy: Mapping[str, float] | None = None) -> float:
    """Seconds until all jobs are done, as the queue hands them out: in order, children after their parents.

    Args:
        jobs: those not started yet, in order. A parent that is neither here nor busy is done.
        workers: how many at a time.
        busy: run -> seconds until its worker is free again.
    """
    waiting = {job.run: job for job in jobs}
    place = {run: i for i, run in enumerate(waiting)}
    children: dict[str, list[str]] = {}
    ready: list[tuple[int, str]] = []
    for job in waiting.values():
        if job.needs in waiting or job.needs in (busy or {}):
            children.setdefault(str(job.needs), []).append(job.run)
        else:
            ready.append((place[job.run], job.run))
    heapq.heapify(ready)
    ends = [(seconds, run) for run, seconds in (busy or {}).items()]
    heapq.heapify(ends)
    now = 0.0
    while ready or ends:
        while ready and len(ends) < max(1, workers):
            run = heapq.heappop(ready)[1]
            heapq.heappush(ends, (now + waiting[run].seconds, run))
        now, done = heapq.heappop(ends)
        for child in children.get(done, ()):
            heapq.heappush(ready, (place[child], child))
    return now


def check_budget(budget: float, runs: int, needed: float, workers: int) -> None:
    """Raises UserError if the `needed` seconds of these runs exceed the budget."""
    if needed > budget:
        raise UserError(
            f"{runs} runs need {clock(needed)} on {many(workers, 'worker')}, more than {clock(budget)} "
            "(fewer seeds, more workers, or a larger budget)",
            key="--budget",
        )
