"""What a person sees while a sweep trains: runs done, loss and metric of those in progress, time left."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from focal_lab.sweep.estimate.check_and_count import Cost
from focal_lab.sweep.estimate.equivalence import length_of
from focal_lab.sweep.estimate.eta import Expected, TimeLeft
from focal_lab.sweep.estimate.makespan import clock
from focal_lab.sweep.plan.manifest import Manifest
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State

# a line per run and per this many seconds where there is no terminal to redraw
_LINE_SECONDS = 30.0
# seconds for which a time left is shown before it is worked out again
_STALE = 1.0


class Planned(Protocol):
    """What a view needs of a plan."""

    @property
    def distinct_runs(self) -> tuple[Run, ...]:
        """The runs, in the order in which they are trained."""


class SweepView:
    """Tells how a sweep goes, on a terminal or line by line.

    Args:
        plan: what is trained.
        costs: run id -> cost, as far as it is known.
        workers: runs trained at the same time.
        console: where to; stderr by default, stdout is for the table.
        seconds: run id -> how long it is expected to take, as far as that is known.
    """

    def __init__(
        self,
        plan: Planned,
        costs: Mapping[str, Cost],
        workers: int,
        console: Console | None = None,
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        runs = plan.distinct_runs
        self.total, self.done = len(runs), 0
        expected, in_seconds = expectations(runs, costs, seconds or {})
        self._known = {run.id for run in runs}
        self._time_left = TimeLeft(expected, workers, in_seconds=in_seconds)
        self._typical = sum(run.weight for run in expected) / max(1, len(expected))
        self._told_left: tuple[float, float | None] = (float("-inf"), None)
        self._promised: list[str] = []
        self._training: dict[str, Run] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._spoken: dict[str, float] = {}
        self._begin = time.monotonic()
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    @classmethod
    def of_manifest(
        cls,
        manifest: Manifest,
        workers: int,
        console: Console | None = None,
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> Self:
        """The view of a command that has joined in: it knows the runs and not what they cost."""
        return cls(manifest, {}, workers, console, seconds=seconds)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def promise(self, count: int, task: str = "") -> None:
        """A search will propose this many more runs, of which nothing is known yet."""
        self.total += count
        self._typical = self._typical or 1.0
        self._promised = [f"proposal {number}" for number in range(count)]
        for name in self._promised:
            self._time_left.add(Expected(name, name, task, self._typical))

    def reused(self, run: Run) -> None:
        """A run has its result already."""
        self._meet(run)
        self.done += 1
        self._time_left.skip(run.id)
        self._say(Text(f"[{self.done}/{self.total}] {describe(run)}: has its result ({run.id})"))

    def started(self, run: Run) -> None:
        """A run's process was started, for the first time or after another one died."""
        self._meet(run)
        now = time.monotonic()
        self._training[run.id] = run
        self._messages.pop(run.id, None)
        self._time_left.start(run.id, now)
        self._spoken[run.id] = now

    def progressed(self, run: Run, message: Mapping[str, Any]) -> None:
        """A run says where it is."""
        known = self._messages.setdefault(run.id, {})
        known.update({key: value for key, value in message.items() if value is not None})
        now = time.monotonic()
        fraction = min(1.0, message["step"] / max(1, message["total"]))
        # checkpoints are written where validations end
        self._time_left.advance(run.id, fraction, now, saved=bool(message.get("validated")))
        if self._live is None and now - self._spoken.get(run.id, now) > _LINE_SECONDS:
            self._spoken[run.id] = now
            self._say(Text(f"  {describe(run)}: {_where(known)}{self._left(now)}"))

    def retried(self, run: Run, reason: str, attempt: int) -> None:
        """A run's process died; it will be trained again from its last checkpoint."""
        self._time_left.lose(run.id, time.monotonic())
        self._training.pop(run.id, None)
        line = f"  {describe(run)}: {reason}; goes on from its last checkpoint (attempt {attempt}, {run.id})"
        self._say(Text(line, style="yellow"))

    def ended(self, run: Run, state: State, reason: str | None) -> None:
        """A run ended here or elsewhere."""
        self._meet(run)
        self.done += 1
        now = time.monotonic()
        self._time_left.end(run.id, now, whole=state is State.FINISHED)
        self._training.pop(run.id, None)
        metric = self._messages.pop(run.id, {}).get("metric")
        value = f", validation {metric:.1f}" if metric is not None else ""
        failed = reason if state is State.PRUNED else f"failed: {reason}"
        told = f"finished{value}" if state is State.FINISHED else failed
        line = f"[{self.done}/{self.total}] {describe(run)}: {told} ({run.id}){self._left(now)}"
        self._say(Text(line, style="red" if state is State.FAILED else ""))

    def stopping(self, count: int) -> None:
        """The command was told to stop, and waits for so many runs to write checkpoints."""
        runs = f"{count} run{'s' * (count != 1)} to write {'checkpoints' if count != 1 else 'its checkpoint'}"
        told = f"stopping: waiting for {runs}; Ctrl-C again leaves at once" if count else "stopping"
        self.noted(told)

    def helped(self, count: int) -> None:
        """Other commands train so many runs now; unless told, that is guessed from the runs they ended."""
        self._time_left.helpers = count

    def noted(self, text: str, style: str = "yellow") -> None:
        """Something that the user should know."""
        self._say(Text(text, style=style))

    def tick(self) -> None:
        """Redraw."""
        if self._live is not None:
            self._live.update(self._draw())

    def _say(self, line: Text) -> None:
        # soft_wrap: a log keeps its lines, a terminal wraps them by itself
        self.console.print(line, soft_wrap=True)

    def _draw(self) -> RenderableType:
        now = time.monotonic()
        told, seconds = self._told_left
        if now - told > _STALE:
            left = self._left(now)
        else:
            left = _about(None if seconds is None else seconds - (now - told))
        head = Text(f"{self.done} of {self.total} runs, {clock(now - self._begin)} so far{left}")
        table = Table.grid(padding=(0, 2))
        for run in self._training.values():
            known = self._messages.get(run.id, {})
            total = max(1, known.get("total", 1))
            bar = ProgressBar(total=total, completed=known.get("step", 0), width=24)
            table.add_row(describe(run), bar, _where(known))
        return Group(head, table)

    def _left(self, now: float) -> str:
        if self.done >= self.total:
            return ""
        seconds = self._time_left.left(now)
        self._told_left = now, seconds
        return _about(seconds)

    def _meet(self, run: Run) -> None:
        """A run that was added to the study later is taken to cost what the others do."""
        if run.id not in self._known:
            self._known.add(run.id)
            if self._promised:
                self._time_left.skip(self._promised.pop())
            else:
                self.total += 1
            self._time_left.add(Expected(run.id, run.cell.name, run.task, self._typical, run.needs))


def expectations(
    runs: Sequence[Run], costs: Mapping[str, Cost], seconds: Mapping[str, float]
) -> tuple[list[Expected], bool]:
    """What runs are expected to take, and whether that is in seconds.

    A run whose time is not known takes as long, for its multiply-accumulates and length, as those of its
    task whose time is; where a task has none, nothing is in seconds.
    """
    work = {
        run.id: (costs[run.id].gmacs if run.id in costs else 1.0) * min(max(length_of(run.config)[1], 1), 1e9)
        for run in runs
    }
    pace: dict[str, float] = {}
    for task in {run.task for run in runs}:
        timed = [run for run in runs if run.task == task and run.id in seconds]
        if timed:
            total = sum(work[run.id] for run in timed)
            pace[task] = sum(seconds[run.id] for run in timed) / total if total else 0.0
    in_seconds = all(run.task in pace for run in runs)
    if in_seconds:
        weights = {run.id: seconds.get(run.id, pace[run.task] * work[run.id]) for run in runs}
    else:
        weights = work
    return [Expected(r.id, r.cell.name, r.task, weights[r.id], r.needs) for r in runs], in_seconds


def describe(run: Run) -> str:
    """`Focal-Tiny, 14, seed 2`, with the task where it is not the usual one."""
    task = "" if run.task == "classification" else f", {run.task}"
    return f"{run.cell.name}{task}, seed {run.seed}"


def _where(known: Mapping[str, Any]) -> str:
    if "step" not in known:
        return "starting"
    parts = [f"step {known['step']}/{known['total']}"]
    if "loss" in known:
        parts.append(f"loss {known['loss']:.3f}")
    if "metric" in known:
        parts.append(f"validation {known['metric']:.1f}")
    return ", ".join(parts)


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {clock(max(0.0, seconds))} left"
