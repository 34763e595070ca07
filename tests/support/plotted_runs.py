"""Plans with finished runs: curves, costs, and spreads between cells and seeds."""

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.finished_runs import FakePlan, config, finish, make_plan

from focal_lab.training.history_file import Point, write_history

GRID = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
CLAIMS = ("Focal-Tiny/7 >= Swin-Tiny/14", "Focal-Tiny/14 > Focal-Tiny/7")
MAIN = {"classification": "top1", "detection": "ap_box", "segmentation": "miou"}


def grid_plan(**changes: Any) -> FakePlan:
    """Table 8 with a claim; `changes` as in `make_plan`."""
    values: dict[str, Any] = {
        "paper": "table8_window_size",
        "claim": "A larger window helps both, and Focal-Tiny at 7 already beats Swin-Tiny at 14.",
        "expect": CLAIMS,
    }
    return make_plan(changes.pop("factors", GRID), **(values | changes))


def many_plan(cells: int = 20, seeds: int = 5) -> FakePlan:
    """A plan of 20 cells with awkward names."""
    backbones = ["Swin-Tiny", "Focal-Tiny", "<script>alert('x')</script>", '$x^2$ & "co"']
    factors = {"backbone": backbones, "window_size": [str(7 * n) for n in range(1, cells // 4 + 1)]}
    return make_plan(factors, name="many", seeds=range(seeds), columns=("params", "gmacs", "top1"))


def search_plan(trials: int = 12) -> FakePlan:
    """The plan of a search with two objectives."""
    labels = ["Swin-Tiny", "Focal-Tiny"]
    factors = {"backbone": labels, "model.lr": [f"{0.001 * n:g}" for n in range(1, trials // 2 + 1)]}
    plan = make_plan(factors, name="learning_rate", seeds=(0,), columns=("params", "gmacs", "top1"))
    objectives = {"top1": "maximize", "gmacs": "minimize"}
    search = SimpleNamespace(objectives=objectives, trials=trials)
    space: Any = SimpleNamespace(search=search, trials=trials)
    return replace(plan, space=space, front=3)


def train(plan: FakePlan, out: Path, *, epochs: int = 20, seed: int = 0) -> None:
    """Finish every run of a plan, with curves."""
    noise = random.Random(seed)
    places = {id(cell): place for place, cell in enumerate(plan.cells)}
    for run in plan.runs:
        place = places[id(run.cell)]
        value = 82 + (place * 37 % 11) * 0.5 + noise.gauss(0, 0.4)
        finish(
            out,
            run.id,
            task=run.task,
            seed=run.seed,
            metrics={MAIN[run.task]: value, "loss": 0.4},
            validation={MAIN[run.task]: value, "loss": 0.4},
            gmacs=4 + (place % 5) * 0.3 + place * 0.01,
            train_seconds=60 + 3 * place + noise.random() * 5,
            peak_memory_mb=800 + 20 * place,
            config=config({"window_size": 7 * (1 + place % 2), "depths": [2, 2, 2 + place, 2]}, lr=0.003),
        )
        points = [_point(epoch, value, place, run.task, noise) for epoch in range(1, epochs + 1)]
        write_history(out / run.id, points)


def _point(epoch: int, value: float, place: int, task: str, noise: random.Random) -> Point:
    loss = 2.3 * math.exp(-epoch / 6) + 0.05 * place + noise.random() * 0.05
    metric = value * (1 - math.exp(-epoch / 4)) + noise.gauss(0, 0.3)
    return Point(float(epoch), epoch * 100, {"train/loss": loss, f"val/{MAIN[task]}": metric, "lr": 0.1})
