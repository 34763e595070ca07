"""A small world for reports: plans as the ablation package makes them, runs as a sweep leaves them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from focal_lab.sweep.run_folder.layout import CONFIG_FILE
from focal_lab.sweep.run_folder.result import Failure, Result, write_record
from focal_lab.sweep.spec.claim_grammar import Expectation, parse_expectation
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.sweep.spec.shapley import reference_levels
from focal_lab.sweep.spec.sweep_file import Level

# what `focal_lab.tasks.tested` writes
TESTED_ON: dict[str, Any] = {
    "count": 2000,
    "images": "1a",
    "labels": "2b",
    "classes": "3c",
    "class_names": "4d",
}


@dataclass(frozen=True)
class FakeSweep:
    """The part of ablation.sweep_file.Sweep that a report reads."""

    name: str
    path: Path
    title: str
    paper: str | None
    claim: str | None
    tasks: tuple[str, ...]
    columns: tuple[str, ...]
    expectations: tuple[Expectation, ...] = ()
    baseline: dict[str, dict[str, str]] = field(default_factory=dict)
    factors: dict[str, tuple[Level, ...]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    success: dict[str, float] = field(default_factory=dict)
    tuning: None = None

    def margin(self, metric: str) -> float:
        """The sweep file's, or the metric's."""
        found = self.margins.get(metric, COLUMNS[metric].margin)
        assert found is not None
        return found


@dataclass(frozen=True)
class FakeCell:
    """The part of ablation.design.Cell that a report reads."""

    labels: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeRun:
    """The part of ablation.runs.Run that a report reads."""

    id: str
    cell: FakeCell
    task: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    backbone: str = "focal_tiny_patch4_window7_224"
    stands_for: str | None = None
    stages: None = None
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakePlan:
    """The part of ablation.plan.Plan that a report reads."""

    sweep: FakeSweep
    suite: str
    cells: tuple[FakeCell, ...]
    runs: tuple[FakeRun, ...]
    space: None = None
    front: int = 0
    # the paper's data, of which TESTED_ON counts the images
    paper_images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MAIN, TESTED_ON["count"]))
    max_seeds: int | None = None
    looked_at: tuple[int, ...] = ()

    def command(self, out: Path) -> str:
        """What trains it."""
        return f"focal-lab sweep {self.sweep.path}" + ("" if out == Path("runs") else f" --out {out}")


def run_id(cell: int, seed: int, task: str = "classification") -> str:
    """The id that `make_plan` gives to the run of that row."""
    return f"{task[:3]}{cell:04d}{seed:05d}"


def make_plan(
    factors: dict[str, Sequence[str]],
    *,
    paper: str | None = None,
    columns: Sequence[str] = ("params", "gmacs", "top1", "ap_box", "ap_mask"),
    tasks: Sequence[str] = ("classification",),
    seeds: Sequence[int] = (0, 1, 2),
    name: str = "window_size",
    claim: str | None = None,
    expect: Sequence[str] = (),
    baseline: dict[str, str] | None = None,
    margins: dict[str, float] | None = None,
) -> FakePlan:
    """A grid over the factors, all runs different."""
    cells = tuple(FakeCell(dict(zip(factors, labels, strict=True))) for labels in product(*factors.values()))
    runs = tuple(
        FakeRun(run_id(number, seed, task), cell, task, seed)
        for number, cell in enumerate(cells)
        for task in tasks
        for seed in seeds
    )
    title = f"Impact of the {name.replace('_', ' ')}"
    path = Path("sweeps") / f"{name}.yaml"
    references = reference_levels(factors, {})
    expectations = tuple(parse_expectation(text, factors, tasks[0], references) for text in expect)
    sweep = FakeSweep(
        name,
        path,
        title,
        paper,
        claim,
        tuple(tasks),
        tuple(columns),
        expectations,
        {factor: dict.fromkeys(factors[factor], label) for factor, label in (baseline or {}).items()},
        margins=margins or {},
    )
    return FakePlan(sweep, "digits", cells, runs)


def finish(out: Path, run: str, **changes: Any) -> Result:
    """Leave a result behind, as a run that has ended does."""
    values: dict[str, Any] = {
        "run": run,
        "task": "classification",
        "seed": changes["seed"] if "seed" in changes else int(run[-1]),
        "metrics": {"top1": 87.5, "top5": 99.0, "loss": 0.41},
        "params": 28288354,
        "gmacs": 4.4936,
        "train_seconds": 61.5,
        "images_per_second": 512.25,
        "peak_memory_mb": 810.5,
        "config_hash": run,
        "config": config({"window_size": 7, "depths": [1, 1, 2, 1]}),
        "identity": {"version": 1},
        "versions": {"torch": "2.14.1"},
        "git": {"commit": "0123abc", "dirty": False},
        "hardware": "2 CPU cores",
        "started": "2026-01-02T10:00:00",
        "finished": "2026-01-02T10:01:02",
        "tested_on": TESTED_ON,
    }
    result = Result(**(values | changes))
    write_record(out / run, result)
    return result


def config(options: dict[str, Any], **init_args: Any) -> dict[str, Any]:
    """The LightningCLI configuration that a run leaves in its result, cut to what a report reads."""
    model = {"backbone": "focal_micro", "num_classes": 10, "lr": 0.003, "backbone_options": options}
    return {"seed_everything": 0, "model": {"class_path": "Classification", "init_args": model | init_args}}


def fail(
    out: Path,
    run: str,
    reason: str = "NaN loss at step 12",
    last: str = "loss=nan",
    seed: int | None = None,
) -> None:
    """Leave a failure behind, as a run that raised does."""
    lines = ["epoch 1", last, ""]
    number = int(run[-1]) if seed is None else seed
    write_record(
        out / run,
        Failure(run, "classification", number, reason, lines, attempts=2, when="2026-01-02T10:00:30"),
    )


def corrupt(out: Path, run: str) -> None:
    """Leave half a result behind, as a full disk does."""
    (out / run).mkdir(parents=True)
    (out / run / "result.json").write_text('{"run": ')


def start(out: Path, run: str) -> None:
    """Leave only a configuration behind, as a killed run does."""
    (out / run).mkdir(parents=True)
    (out / run / CONFIG_FILE).write_text("seed_everything: 0\n")
