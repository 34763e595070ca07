"""Wall time of the runs of a sweep: from their expected times, corrected by the times observed so far."""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

# A smaller share of a run says nothing about its speed.
_LEAST = 0.03


class Job(NamedTuple):
    """A run to train: its seconds, and the run that it waits for."""

    run: str
    seconds: float
    needs: str | None = None


def finish_time(jobs: Iterable[Job], workers: int) -> float:
    """Seconds until all jobs are done, as the queue hands them out: in order, children after their parents.

    A parent that is not among the jobs is done.
    """
    waiting = list(jobs)
    unfinished = {job.run for job in waiting}
    training: list[tuple[float, str]] = []
    now = 0.0
    while waiting or training:
        ready = None
        if len(training) < max(1, workers):
            ready = next((job for job in waiting if job.needs not in unfinished), None)
        if ready is not None:
            waiting.remove(ready)
            heapq.heappush(training, (now + ready.seconds, ready.run))
        else:
            now, done = heapq.heappop(training)
            unfinished.discard(done)
    return now


@dataclass(frozen=True)
class Expected:
    """What is known about a run before it starts.

    Attributes:
        cell: runs of one cell and task take equally long.
        weight: seconds, or anything proportional to the time of a task's runs.
        needs: the run that it starts from.
    """

    run: str
    cell: str
    task: str
    weight: float
    needs: str | None = None


@dataclass
class _Progress:
    """A run in training: when it started, when and where it first reported, and last."""

    begin: float
    first: float | None = None
    last: float = 0.0
    from_fraction: float = 0.0
    fraction: float = 0.0

    @property
    def share(self) -> float:
        """Share of the run trained by this process."""
        return self.fraction - self.from_fraction

    @property
    def whole(self) -> float | None:
        """Seconds of a whole run at this speed; None before enough of it is done."""
        if self.first is None or self.share < _LEAST:
            return None
        return self.first - self.begin + (self.last - self.first) / self.share

    def rest(self, expected: float, now: float) -> float:
        """Seconds to its end; `expected`: of the whole run, start included."""
        if self.first is None:
            return max(expected - (now - self.begin), 0.1 * expected)
        steps = (self.whole or expected) - (self.first - self.begin)
        return max(0.0, (1 - self.fraction) * steps - (now - self.last))


class TimeLeft:
    """Seconds until a sweep is done.

    A run takes its weight times the seconds per weight of the runs seen so far, of its cell or else its task.

    Args:
        runs: what is trained, in this order.
        workers: runs at a time.
        in_seconds: whether weights are seconds.

    Attributes:
        helpers: runs that other commands are training.
        unknown: runs still to come of which nothing is known, such as a search's.
    """

    def __init__(self, runs: Iterable[Expected], workers: int, *, in_seconds: bool = False) -> None:
        self.workers, self._in_seconds = workers, in_seconds
        self.helpers = self.unknown = 0
        self._open = {run.run: run for run in runs}
        self._training: dict[str, _Progress] = {}
        self._seen: list[tuple[Expected, float, float]] = []  # runs, seconds of a whole one, share of it

    def add(self, run: Expected) -> None:
        """A run joins the plan."""
        self._open[run.run] = run

    def start(self, run: str, now: float) -> None:
        """A run starts to train, or resumes."""
        self._training[run] = _Progress(now)

    def advance(self, run: str, fraction: float, now: float) -> None:
        """A run has done this share of its steps."""
        progress = self._training[run]
        if progress.first is None:
            progress.first, progress.from_fraction = now, fraction
        progress.last, progress.fraction = now, fraction

    def end(self, run: str, now: float, *, whole: bool = True) -> None:
        """A run ended, here or elsewhere, or needs no training; `whole`: with all its steps done."""
        progress, expected = self._training.pop(run, None), self._open.pop(run, None)
        if progress is None or expected is None or not whole:
            return
        share = 1.0 - progress.from_fraction
        if share >= _LEAST:  # else it was only tested after it was resumed
            self._seen.append((expected, (now - progress.begin) / share, share))

    def lose(self, run: str) -> None:
        """A run's process was killed; the run will resume."""
        self._training.pop(run, None)

    def left(self, now: float) -> float | None:
        """Seconds until all runs are done; None before anything can be said."""
        seen = list(self._seen)
        for name, progress in self._training.items():
            if name in self._open and progress.whole is not None:
                seen.append((self._open[name], progress.whole, progress.share))
        seconds: dict[str, float] = defaultdict(float)
        weights: dict[str, float] = defaultdict(float)
        for run, whole, share in seen:
            for key in _keys(run):
                seconds[key] += whole * share
                weights[key] += run.weight * share
        jobs, helped = [], self.helpers
        for run in self._open.values():
            known = next((key for key in _keys(run) if weights[key] > 0), None)
            if known is None and not self._in_seconds:
                return None
            expected = run.weight * (seconds[known] / weights[known] if known is not None else 1.0)
            if run.run in self._training:
                expected = self._training[run.run].rest(expected, now)
            elif helped > 0:
                helped -= 1
                expected /= 2  # in training elsewhere; how far is not known
            jobs.append(Job(run.run, expected, run.needs))
        jobs.sort(key=lambda job: job.run not in self._training)  # workers are busy with these
        if self.unknown:
            if not seen:
                return None
            jobs += [Job("", fmean(whole for _, whole, _ in seen))] * self.unknown
        return finish_time(jobs, self.workers + self.helpers)


def _keys(run: Expected) -> tuple[str, str]:
    """What runs of about the same speed have in common, the best first."""
    return f"{run.task} {run.cell}", run.task
