"""Time left of a sweep: expected times of its runs, corrected by the times observed so far."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from focal_lab.sweep.estimate.makespan import Job, finish_time

# A smaller share of a run says nothing about its speed.
_LEAST = 0.03


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

    A run takes its weight times the seconds per weight of the runs seen so far: of its cell, else of its
    task, else of all. Weights other than seconds do not compare between tasks.

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
        self._weights = [run.weight for run in self._open.values()]
        self._training: dict[str, _Progress] = {}
        self._saved: dict[str, float] = {}
        self._seen: dict[str, list[tuple[float, float]]] = defaultdict(list)  # (seconds, weight) by key

    def add(self, run: Expected) -> None:
        """A run joins the plan."""
        self._open.setdefault(run.run, run)
        self._weights.append(run.weight)

    def start(self, run: str, now: float) -> None:
        """A run starts to train, or resumes."""
        self._training[run] = _Progress(now)

    def advance(self, run: str, fraction: float, now: float, *, saved: bool = False) -> None:
        """A run has done this share of its steps; `saved`: and can resume from here."""
        progress = self._training.get(run)
        if progress is None:
            return
        if progress.first is None:
            progress.first, progress.from_fraction = now, fraction
        progress.last, progress.fraction = now, fraction
        if saved:
            self._saved[run] = fraction

    def end(self, run: str, now: float, *, whole: bool = True) -> None:
        """A run ended, here or elsewhere; `whole`: with all its steps done."""
        progress, expected = self._training.pop(run, None), self._open.pop(run, None)
        if whole and progress is not None and expected is not None:
            self._see(self._seen, expected, now - progress.begin, 1.0 - progress.from_fraction)

    def lose(self, run: str) -> None:
        """A run's process was killed; it resumes from what it had saved."""
        self._training.pop(run, None)

    def skip(self, run: str) -> None:
        """A run needs no training."""
        self._open.pop(run, None)

    def left(self, now: float) -> float | None:
        """Seconds until all runs are done; None before anything can be said."""
        seen = defaultdict(list, {key: list(values) for key, values in self._seen.items()})
        for name, progress in self._training.items():
            if name in self._open and progress.whole is not None:
                self._see(seen, self._open[name], progress.whole * progress.share, progress.share)
        rates = {
            key: sum(s for s, _ in pairs) / sum(w for _, w in pairs) for key, pairs in seen.items() if pairs
        }
        busy: dict[str, float] = {}
        jobs: list[Job] = []
        for run in self._open.values():
            keys = (_cell(run), run.task, *([""] if self._in_seconds else []))
            rate = next((rates[key] for key in keys if key in rates), 1.0 if self._in_seconds else None)
            if rate is None:
                return None
            if run.run in self._training:
                busy[run.run] = self._training[run.run].rest(run.weight * rate, now)
            else:
                rest = run.weight * rate * (1 - self._saved.get(run.run, 0.0))
                jobs.append(Job(run.run, rest, run.needs))
        if self.unknown:
            if "" not in rates:
                return None
            each = fmean(self._weights) * rates[""]
            jobs += [Job(f"unknown {number}", each) for number in range(self.unknown)]
        for job in jobs[: self.helpers]:
            busy[job.run] = job.seconds / 2  # in training elsewhere; how far is not known
        return finish_time(jobs[self.helpers :], self.workers + self.helpers, busy)

    @staticmethod
    def _see(seen: dict[str, list[tuple[float, float]]], run: Expected, seconds: float, share: float) -> None:
        if share < _LEAST or run.weight <= 0:
            return  # a run of one step, or one that was only tested after it was resumed
        for key in ("", run.task, _cell(run)):
            seen[key].append((seconds, run.weight * share))


def _cell(run: Expected) -> str:
    return f"{run.task} {run.cell}"
