"""Progress display of a sweep: finished runs, loss and metric of those in progress, time left."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from focal_lab.sweep.estimate.equivalence import length_of
from focal_lab.sweep.estimate.eta import Expected, TimeLeft
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.worker.request import Cost
from focal_lab.utils.units import clock

# Seconds between lines of a run where there is no terminal to redraw, and between updates of the time left.
_LINE_SECONDS, _STALE = 30.0, 1.0


class SweepView:
    """Reports the progress of a sweep, on a terminal or line by line.

    Args:
        runs: what is trained, in this order.
        costs: by run ID, as far as known.
        workers: runs trained at the same time.
        promised: runs that a search will propose beside these.
        console: stderr by default; stdout is for the table.
        seconds: expected, by run ID, as far as known.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        costs: Mapping[str, Cost],
        workers: int,
        promised: int = 0,
        console: Console | None = None,
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.total, self.done = len(runs) + promised, 0
        expected, in_seconds = expected_times(runs, costs, seconds or {})
        self._known = {run.id for run in runs}
        self._time_left = TimeLeft(expected, workers, in_seconds=in_seconds)
        self._time_left.unknown = promised
        self._typical = sum(run.weight for run in expected) / len(expected) if expected else 1.0
        self._left_at: tuple[float, float | None] = (float("-inf"), None)
        self._training: dict[str, Run] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._printed: dict[str, float] = {}
        self._begin = time.monotonic()
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Restore the terminal."""
        if self._live is not None:
            self._live.stop()

    def reused(self, run: Run) -> None:
        """A run already has its result."""
        self._meet(run)
        self.done += 1
        self._time_left.end(run.id, time.monotonic())
        self._print(f"[{self.done}/{self.total}] {describe(run)}: already trained ({run.id})")

    def started(self, run: Run) -> None:
        """A run's process was started, for the first time or again."""
        self._meet(run)
        now = time.monotonic()
        self._training[run.id] = run
        self._messages.pop(run.id, None)
        self._time_left.start(run.id, now)
        self._printed[run.id] = now

    def progressed(self, run: Run, message: Mapping[str, Any]) -> None:
        """A run reports its step."""
        known = self._messages.setdefault(run.id, {})
        known.update({key: value for key, value in message.items() if value is not None})
        now = time.monotonic()
        fraction = min(1.0, message["step"] / max(1, message["total"]))
        self._time_left.advance(run.id, fraction, now)
        if self._live is None and now - self._printed.get(run.id, now) > _LINE_SECONDS:
            self._printed[run.id] = now
            self._print(f"  {describe(run)}: {_where(known)}{self._left(now)}")

    def retried(self, run: Run, reason: str, attempt: int) -> None:
        """A run's process crashed or was killed; the run will resume from its last checkpoint."""
        self._time_left.lose(run.id)
        self._training.pop(run.id, None)
        line = f"  {describe(run)}: {reason}; resumes from its last checkpoint (attempt {attempt}, {run.id})"
        self._print(line, "yellow")

    def ended(self, run: Run, state: State, reason: str | None) -> None:
        """A run ended here or elsewhere."""
        self._meet(run)
        self.done += 1
        now = time.monotonic()
        self._time_left.end(run.id, now, whole=state is State.FINISHED)
        self._training.pop(run.id, None)
        metric = self._messages.pop(run.id, {}).get("metric")
        value = f", validation {metric:.1f}" if metric is not None else ""
        how = reason if state is State.PRUNED else f"failed: {reason}"
        how = f"finished{value}" if state is State.FINISHED else how
        line = f"[{self.done}/{self.total}] {describe(run)}: {how} ({run.id}){self._left(now)}"
        self._print(line, "red" if state is State.FAILED else "")

    def stopping(self, count: int) -> None:
        """The command was stopped, and waits for `count` runs to write checkpoints."""
        runs = f"{count} run{'s' * (count != 1)} to write {'checkpoints' if count != 1 else 'its checkpoint'}"
        self.noted(f"stopping: waiting for {runs}; Ctrl-C again exits at once" if count else "stopping")

    def helped(self, count: int) -> None:
        """Other commands are training `count` runs."""
        self._time_left.helpers = count

    def noted(self, text: str, style: str = "yellow") -> None:
        """Something that the user should know."""
        self._print(text, style)

    def tick(self) -> None:
        """Redraw."""
        if self._live is not None:
            self._live.update(self._draw())

    def _print(self, line: str, style: str = "") -> None:
        # soft_wrap: a log keeps its lines, a terminal wraps them by itself
        self.console.print(Text(line, style=style), soft_wrap=True)

    def _draw(self) -> RenderableType:
        now = time.monotonic()
        head = Text(f"{self.done} of {self.total} runs, {clock(now - self._begin)} so far{self._left(now)}")
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
        when, seconds = self._left_at
        if now - when > _STALE:
            when, seconds = self._left_at = now, self._time_left.left(now)
        return "" if seconds is None else f", about {clock(max(0.0, seconds - (now - when)))} left"

    def _meet(self, run: Run) -> None:
        """A run that joined the study later is expected to take as long as the others."""
        if run.id not in self._known:
            self._known.add(run.id)
            if self._time_left.unknown:
                self._time_left.unknown -= 1
            else:
                self.total += 1
            self._time_left.add(Expected(run.id, run.cell.name, run.task, self._typical, run.needs))


def expected_times(
    runs: Sequence[Run], costs: Mapping[str, Cost], seconds: Mapping[str, float]
) -> tuple[list[Expected], bool]:
    """What runs are expected to take, and whether that is in seconds, as it is where all are known.

    Otherwise it is their multiply-accumulates times the length of the training.
    """
    in_seconds = bool(runs) and all(run.id in seconds for run in runs)

    def weight(run: Run) -> float:
        if in_seconds:
            return seconds[run.id]
        gmacs = costs[run.id].gmacs if run.id in costs else 1.0
        return gmacs * min(max(length_of(run.config)[1], 1), 1e9)

    return [Expected(r.id, r.cell.name, r.task, weight(r), r.needs) for r in runs], in_seconds


def describe(run: Run) -> str:
    """`Focal-Tiny, 14, seed 2`, with the task where it is not classification."""
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
