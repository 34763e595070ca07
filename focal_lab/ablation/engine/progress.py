"""What a person sees while a sweep trains: runs done, loss and metric of those in progress, time left."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from focal_lab.ablation.costs import Cost
from focal_lab.ablation.outcomes import State
from focal_lab.ablation.plan import Plan
from focal_lab.ablation.runs import Run

# a line per run and per this many seconds where there is no terminal to redraw
_LINE_SECONDS = 30.0


class Estimate:
    """Time left of a sweep, from how long the training so far took.

    Runs cost different amounts. What a run costs is taken to be its multiply-accumulates times its steps
    until runs of the same cell have been seen, then what those took. Tasks do not compare: nothing is said
    before a run of each has begun.
    """

    def __init__(
        self, weights: Mapping[str, float], workers: int, tasks: Mapping[str, str] | None = None
    ) -> None:
        self.weights, self.workers = dict(weights), workers
        self._tasks = dict(tasks or {})
        self.fractions: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def start(self, run: str, now: float) -> None:
        """A run begins to train."""
        self._started[run], self.fractions[run] = now, 0.0

    def advance(self, run: str, fraction: float) -> None:
        """A run has done this share of its steps."""
        self.fractions[run] = fraction

    def end(self, run: str, now: float) -> None:
        """A run ended; it counts as done, whatever came of it."""
        self._seconds[run] = now - self._started.pop(run, now)
        self.fractions[run] = 1.0

    def skip(self, run: str) -> None:
        """A run needs no training."""
        self.weights.pop(run, None)
        self.fractions.pop(run, None)

    def left(self, now: float) -> float | None:
        """Seconds until all are done, None before anything can be said."""
        seconds: list[float] = []
        for task in {self._tasks.get(run) for run in self.weights}:
            rest = self._rest(task, now)
            if rest is None:
                return None
            seconds += rest
        # the workers cannot share the last run among them
        return max(sum(seconds) / self.workers, max(seconds, default=0.0))

    def _rest(self, task: str | None, now: float) -> list[float] | None:
        """Seconds that each run of a task still takes, None before anything can be said."""

        def of_task(runs: Iterable[str]) -> list[str]:
            return [run for run in runs if run in self.weights and self._tasks.get(run) == task]

        spent = sum(self._seconds[run] for run in of_task(self._seconds))
        spent += sum(now - self._started[run] for run in of_task(self._started))
        done = sum(self.weights[run] * self.fractions[run] for run in of_task(self.fractions))
        if done <= 0 or spent < 2:
            return None
        rest = [self.weights[run] * (1 - self.fractions.get(run, 0.0)) for run in of_task(self.weights)]
        return [weight * spent / done for weight in rest]


class SweepView:
    """Tells how a sweep goes, on a terminal or line by line.

    Args:
        plan: what is trained.
        costs: run id -> cost.
        workers: runs trained at the same time.
        console: where to; stderr by default, stdout is for the table.
    """

    def __init__(
        self, plan: Plan, costs: Mapping[str, Cost], workers: int, console: Console | None = None
    ) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.total = len(plan.distinct_runs)
        self.done = 0
        self._estimate = Estimate(
            {run.id: costs[run.id].gmacs for run in plan.distinct_runs},
            workers,
            {run.id: run.task for run in plan.distinct_runs},
        )
        self._training: dict[str, Run] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._spoken: dict[str, float] = {}
        self._begin = time.monotonic()
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def reused(self, run: Run) -> None:
        """A run has its result already."""
        self.done += 1
        self._estimate.skip(run.id)
        self._say(Text(f"[{self.done}/{self.total}] {describe(run)}: has its result ({run.id})"))

    def started(self, run: Run) -> None:
        """A run's process was started."""
        self._training[run.id] = run
        self._estimate.start(run.id, time.monotonic())
        self._spoken[run.id] = time.monotonic()

    def progressed(self, run: Run, message: Mapping[str, Any]) -> None:
        """A run says where it is."""
        known = self._messages.setdefault(run.id, {})
        known.update({key: value for key, value in message.items() if value is not None})
        self._estimate.advance(run.id, min(1.0, message["step"] / max(1, message["total"])))
        now = time.monotonic()
        if self._live is None and now - self._spoken.get(run.id, now) > _LINE_SECONDS:
            self._spoken[run.id] = now
            self._say(Text(f"  {describe(run)}: {_where(known)}{self._left(now)}"))

    def ended(self, run: Run, state: State, reason: str | None) -> None:
        """A run ended here or elsewhere."""
        self.done += 1
        now = time.monotonic()
        self._estimate.end(run.id, now)
        self._training.pop(run.id, None)
        metric = self._messages.get(run.id, {}).get("metric")
        value = f", validation {metric:.1f}" if metric is not None else ""
        told = f"finished{value}" if state is State.FINISHED else f"failed: {reason}"
        line = f"[{self.done}/{self.total}] {describe(run)}: {told} ({run.id}){self._left(now)}"
        self._say(Text(line, style="" if state is State.FINISHED else "red"))

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
        head = Text(f"{self.done} of {self.total} runs, {_clock(now - self._begin)} so far{self._left(now)}")
        table = Table.grid(padding=(0, 2))
        for run in self._training.values():
            known = self._messages.get(run.id, {})
            total = max(1, known.get("total", 1))
            bar = ProgressBar(total=total, completed=known.get("step", 0), width=24)
            table.add_row(describe(run), bar, _where(known))
        return Group(head, table)

    def _left(self, now: float) -> str:
        seconds = self._estimate.left(now)
        return f", about {_clock(seconds)} left" if seconds is not None and self.done < self.total else ""


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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
