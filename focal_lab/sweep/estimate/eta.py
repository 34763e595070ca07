"""How long a sweep still takes: what was expected of its runs, corrected by what they really took."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from focal_lab.sweep.estimate.makespan import Job, finish_time

# What is expected counts like this many runs: of all, of a task, of a cell. Runs of a cell differ by their
# seed alone, so that one of them says nearly everything about the others.
_TRUST_ALL, _TRUST_TASK, _TRUST_CELL = 0.5, 0.5, 0.25
# A run's own pace counts as much as what is expected of it when it has done this share.
_TRUST_PACE = 0.1
# Less than this share of a run says nothing.
_LEAST = 0.03
# Seconds: nothing is said of a plan without expected times before this much was seen.
_LEAST_SECONDS = 2.0
# With more open runs than these no one run decides when the sweep ends.
_MOST_SCHEDULED = 400


@dataclass(frozen=True)
class Expected:
    """What is known of a run beforehand.

    Attributes:
        cell: runs of one cell and task take equally long.
        weight: its cost: seconds, or anything that is proportional to the time of a task's runs.
        needs: the run that it starts from.
    """

    run: str
    cell: str
    task: str
    weight: float
    needs: str | None = None


@dataclass
class _Attempt:
    """A run in progress: when it began, when and where it was first heard of, and last."""

    begin: float
    first: float | None = None
    last: float = 0.0
    from_fraction: float = 0.0
    fraction: float = 0.0

    @property
    def share(self) -> float:
        """Of the run, done by this attempt."""
        return self.fraction - self.from_fraction

    @property
    def pace(self) -> float | None:
        """Seconds of a whole run at this attempt's speed, without its start."""
        if self.first is None or self.share < _LEAST:
            return None
        return (self.last - self.first) / self.share

    @property
    def start_up(self) -> float:
        """Seconds before its first step."""
        return 0.0 if self.first is None else self.first - self.begin


class TimeLeft:
    """Time left of a sweep.

    A run's time is its weight times a rate, which is learnt from all runs, then from those of its task, then
    from those of its cell, and for a run in progress from its own pace. Weights in anything but seconds do
    not compare between tasks, and leave out what a run costs before its first step.

    Args:
        runs: what is trained, in this order.
        workers: runs at a time.
        in_seconds: whether weights are seconds.

    Attributes:
        helpers: runs that other commands have in progress; None where nobody tells, then it is guessed.
    """

    helpers: int | None = None

    def __init__(self, runs: Iterable[Expected], workers: int, *, in_seconds: bool = False) -> None:
        self.workers, self._in_seconds = workers, in_seconds
        self._open = {run.run: run for run in runs}
        self._attempts: dict[str, _Attempt] = {}
        self._saved: dict[str, float] = {}
        self._learnt: dict[str, tuple[float, float]] = {}
        self._start_ups: list[float] = []
        self._useful = self._wasted = 0.0
        self._begin: float | None = None
        self._elsewhere: list[float] = []

    def add(self, run: Expected) -> None:
        """A run that was not planned when this began."""
        self._open.setdefault(run.run, run)

    def start(self, run: str, now: float) -> None:
        """A run begins to train, or goes on."""
        self._begin = now if self._begin is None else self._begin
        self._attempts[run] = _Attempt(now)

    def advance(self, run: str, fraction: float, now: float, *, saved: bool = False) -> None:
        """A run has done this share of its steps; `saved`: and can go on from here."""
        attempt = self._attempts.get(run)
        if attempt is None:
            return
        if attempt.first is None:
            attempt.first, attempt.from_fraction = now, fraction
            self._start_ups.append(attempt.start_up)
        attempt.last, attempt.fraction = now, fraction
        if saved:
            self._saved[run] = fraction

    def end(self, run: str, now: float, *, whole: bool = True) -> None:
        """A run ended, here or elsewhere; `whole`: with all its steps done."""
        attempt, expected = self._attempts.pop(run, None), self._open.pop(run, None)
        if expected is None:
            return
        if attempt is None:
            # whoever gave up a run without having begun it did no work
            self._elsewhere += [expected.weight] if whole else []
            return
        seconds, share = now - attempt.begin, 1.0 - attempt.from_fraction if whole else attempt.share
        if share > _LEAST:
            _add(self._learnt, expected, seconds - self._fixed(attempt), share)
            self._useful += seconds

    def lose(self, run: str, now: float) -> None:
        """A run's process died; what it had saved is not lost."""
        attempt = self._attempts.pop(run, None)
        if attempt is None:
            return
        kept = max(0.0, self._saved.get(run, 0.0) - attempt.from_fraction)
        lost = 1.0 if attempt.share <= 0 else 1 - min(1.0, kept / attempt.share)
        self._wasted += lost * (now - attempt.begin)
        self._useful += (1 - lost) * (now - attempt.begin)
        expected = self._open.get(run)
        if attempt.pace is not None and expected is not None:
            _add(self._learnt, expected, attempt.pace * attempt.share, attempt.share)

    def skip(self, run: str) -> None:
        """A run needs no training."""
        self._open.pop(run, None)
        self._attempts.pop(run, None)

    def left(self, now: float) -> float | None:
        """Seconds until all are done, None before anything can be said."""
        if not self._open:
            return 0.0
        learnt = dict(self._learnt)
        for run, seconds, share in self._in_progress():
            _add(learnt, run, seconds, share)
        rates = _Rates(self._open.values(), learnt, self._in_seconds)
        if not self._in_seconds and not rates.seen >= _LEAST_SECONDS:
            return None
        busy: dict[str, float] = {}
        jobs: list[Job] = []
        fixed = self._mean_start_up()
        for run in self._open.values():
            rate = rates.of(run)
            if rate is None:
                return None
            attempt = self._attempts.get(run.run)
            if attempt is None:
                rest = run.weight * rate * (1 - self._saved.get(run.run, 0.0)) + fixed
                jobs.append(Job(run.run, rest, run.needs))
            else:
                busy[run.run] = self._rest(attempt, run.weight * rate, now)
        rest = sum(job.seconds for job in jobs)
        # deaths go on as before, but a few early ones prove little
        repeated = 1 + self._wasted / (self._useful + rest) if rest else 1.0
        return self._share_out(jobs, busy, self._helpers(rates, now)) * repeated

    def _share_out(self, jobs: list[Job], busy: dict[str, float], helpers: float) -> float:
        """Over our workers and those of other commands."""
        count = round(helpers)
        for job in jobs[:count]:
            busy[job.run] = job.seconds / 2  # theirs, we do not see how far they are
        del jobs[:count]
        if len(jobs) <= _MOST_SCHEDULED:
            return finish_time(jobs, self.workers + count, busy)
        return (sum(job.seconds for job in jobs) + sum(busy.values())) / (self.workers + helpers)

    def _helpers(self, rates: "_Rates", now: float) -> float:
        """Workers of other commands, from the runs that they have finished; each is in the midst of one."""
        if self.helpers is not None or self._begin is None or not self._elsewhere:
            return self.helpers or 0.0
        work = sum(self._elsewhere) * rates.overall
        half = work / len(self._elsewhere) / 2
        return max(1.0, work / max(now - self._begin - half, half))

    def _rest(self, attempt: _Attempt, whole: float, now: float) -> float:
        """Seconds that a run in progress still takes; `whole`: what all its steps are expected to take."""
        if attempt.first is None:
            return max(whole + self._mean_start_up() - (now - attempt.begin), 0.1 * whole)
        pace, trust = attempt.pace, attempt.share / (attempt.share + _TRUST_PACE)
        expected = whole if pace is None else trust * pace + (1 - trust) * whole
        return max(0.0, (1 - attempt.fraction) * expected - (now - attempt.last))

    def _in_progress(self) -> Iterable[tuple[Expected, float, float]]:
        for name, attempt in self._attempts.items():
            run = self._open.get(name)
            if run is not None and attempt.pace is not None:
                start_up = attempt.start_up if self._in_seconds else 0.0
                yield run, (attempt.pace + start_up) * attempt.share, attempt.share

    def _fixed(self, attempt: _Attempt) -> float:
        """Seconds of an attempt that its weight does not stand for."""
        return 0.0 if self._in_seconds else attempt.start_up

    def _mean_start_up(self) -> float:
        if self._in_seconds or not self._start_ups:
            return 0.0
        return sum(self._start_ups) / len(self._start_ups)


def _add(learnt: dict[str, tuple[float, float]], run: Expected, seconds: float, share: float) -> None:
    """Note how long a share of a run took, for all runs, its task and its cell."""
    for key in ("", run.task, _cell(run)):
        before, weight = learnt.get(key, (0.0, 0.0))
        learnt[key] = before + seconds, weight + run.weight * share


def _cell(run: Expected) -> str:
    return f"{run.task} {run.cell}"


class _Rates:
    """Seconds per weight: of all runs, of a task, of a cell, each leaning on the one before."""

    def __init__(
        self, runs: Iterable[Expected], learnt: Mapping[str, tuple[float, float]], in_seconds: bool
    ) -> None:
        self._in_seconds, self._learnt = in_seconds, learnt
        counts: dict[str, int] = defaultdict(int)
        everything: dict[str, float] = defaultdict(float)
        for run in runs:
            for key in ("", run.task):
                everything[key] += run.weight
                counts[key] += 1
        self._mean = {key: everything[key] / counts[key] for key in counts}
        self.seen = learnt.get("", (0.0, 0.0))[0]
        self.overall = (
            self._leaning("", 1.0 if in_seconds else None, _TRUST_ALL * self._mean.get("", 0)) or 0.0
        )
        self._tasks: dict[str, float | None] = {}

    def of(self, run: Expected) -> float | None:
        """The rate of a run; None if nothing of its task was seen and tasks do not compare."""
        if run.task not in self._tasks:
            base = self.overall if self._in_seconds else None
            self._tasks[run.task] = self._leaning(run.task, base, _TRUST_TASK * self._mean[run.task])
        return self._leaning(_cell(run), self._tasks[run.task], _TRUST_CELL * run.weight)

    def _leaning(self, key: str, base: float | None, trust: float) -> float | None:
        seconds, weights = self._learnt.get(key, (0.0, 0.0))
        if base is None:
            return seconds / weights if weights > 0 else None
        return (seconds + trust * base) / (weights + trust) if weights + trust > 0 else base
