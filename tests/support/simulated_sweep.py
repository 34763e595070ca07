"""A simulated sweep: what happens, in order, and the time left as it is estimated meanwhile."""

import heapq
import math
import random
from dataclasses import dataclass, field, replace

from focal_lab.sweep.estimate.eta import Expected, TimeLeft

MESSAGES = 40
EPOCHS = 4


@dataclass
class Played:
    """A run as it will happen: seconds before its first step, of all its steps, and after the last."""

    expected: Expected
    start_up: float
    steps: float
    tail: float
    dies_at: float | None = None
    resumes_from: float = 0.0


@dataclass
class Sweep:
    """What is played: `reused` have their result, `elsewhere` is how many workers another command has."""

    runs: list[Played]
    workers: int
    in_seconds: bool
    reused: set[str] = field(default_factory=set)
    elsewhere: int = 0


def invented(seed: int, workers: int) -> Sweep:
    """A random sweep: tasks and cells of different costs, expected more or less rightly."""
    dice = random.Random(seed)
    tasks = ["classification", "detection", "segmentation"][: dice.choice([1, 1, 2, 3])]
    cells, seeds = dice.randint(2, 8), dice.randint(3, 5)
    in_seconds = dice.random() < 0.5
    start_up = dice.uniform(1.0, 6.0)
    bias = dice.uniform(0.7, 1.4)
    task_cost = {task: dice.uniform(20, 200) for task in tasks}
    unit = {task: 1.0 if in_seconds else dice.uniform(0.01, 10) for task in tasks}
    cell_cost = {cell: dice.choice([1.0, dice.uniform(1, 5)]) for cell in range(cells)}
    steps = {(t, c): task_cost[t] * cell_cost[c] for t in tasks for c in range(cells)}
    tail = {key: seconds * dice.uniform(0, 0.1) for key, seconds in steps.items()}
    wrong = {key: math.exp(dice.gauss(0, 0.1)) for key in steps}
    runs = []
    for number in range(seeds):
        for cell in range(cells):
            for task in tasks:
                key = (task, cell)
                fixed = start_up if in_seconds else 0.0
                weight = (steps[key] + tail[key] + fixed) * bias * wrong[key] * unit[task]
                name = f"{task} {cell} {number}"
                needs = None if task == "classification" else f"classification {cell} {number}"
                expected = Expected(name, str(cell), task, weight, needs)
                luck = math.exp(dice.gauss(0, 0.05))
                dies = dice.uniform(0.1, 0.95) if dice.random() < 0.08 else None
                runs.append(Played(expected, start_up, steps[key] * luck, tail[key], dies))
    reused = {run.expected.run for run in runs if dice.random() < 0.15 and run.expected.task == tasks[0]}
    if dice.random() < 0.3:  # a sweep that was stopped: what it was at goes on
        stopped = [run for run in runs if run.expected.run not in reused and run.expected.needs is None]
        for run in stopped[:workers]:
            run.dies_at, run.resumes_from = None, dice.choice([0.25, 0.5, 0.75])
    return Sweep(runs, workers, in_seconds, reused, dice.choice([0, 0, 0, 1, 2]))


def story(sweep: Sweep) -> list[tuple[float, str, str, float]]:
    """(when, what, run, fraction) of all that happens, in order; the last one is the end of the sweep."""
    reported: list[tuple[float, str, str, float]] = []
    waiting = {run.expected.run: run for run in sweep.runs if run.expected.run not in sweep.reused}
    not_done = set(waiting)
    free = ["ours"] * sweep.workers + ["theirs"] * sweep.elsewhere
    ends: list[tuple[float, int, str, str, str]] = []
    started: dict[str, Played] = {}
    now = 0.0
    while waiting or ends:
        for name, run in list(waiting.items()):
            if free and run.expected.needs not in not_done:
                del waiting[name]
                where = free.pop(0)
                *before, (until, what, at) = _life(run, now)
                if where == "ours":
                    reported += [
                        (now, "start", name, 0.0),
                        *((when, kind, name, part) for when, kind, part in before),
                    ]
                heapq.heappush(ends, (until, len(reported), what, name, where))
                resumable = replace(run, dies_at=None, resumes_from=math.floor(at * EPOCHS) / EPOCHS)
                started[name] = resumable
        now, _, what, name, where = heapq.heappop(ends)
        free.append(where)
        if where == "ours" or what == "end":
            reported.append((now, what, name, 1.0))
        if what == "end":
            not_done.discard(name)
        else:
            waiting[name] = started[name]
    return sorted(reported, key=lambda event: event[0])


def left_after(sweep: Sweep, share: float) -> tuple[float | None, float]:
    """Seconds left as reported after a share of the sweep, and as it comes to be."""
    happens = story(sweep)
    total = happens[-1][0]
    reported = TimeLeft([run.expected for run in sweep.runs], sweep.workers, in_seconds=sweep.in_seconds)
    reported.helpers = sweep.elsewhere
    for run in sweep.reused:
        reported.end(run, 0.0)
    for now, what, run, part in happens:
        if now > share * total:
            break
        if what == "start":
            reported.start(run, now)
        elif what == "step":
            reported.advance(run, part, now)
        elif what == "died":
            reported.lose(run)
        else:
            reported.end(run, now)
    return reported.left(share * total), (1 - share) * total


def _life(run: Played, begin: float) -> list[tuple[float, str, float]]:
    """(when, what, fraction) of an attempt."""
    start, first = begin + run.start_up, run.resumes_from
    dies_at = 2.0 if run.dies_at is None else run.dies_at
    parts = [first + (1 - first) * message / MESSAGES for message in range(MESSAGES + 1)]
    steps = [(start + run.steps * (part - first), "step", part) for part in parts if part < dies_at]
    if run.dies_at is not None:
        return [*steps, (start + run.steps * (dies_at - first), "died", dies_at)]
    return [*steps, (start + run.steps * (1 - first) + run.tail, "end", 1.0)]
