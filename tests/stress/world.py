"""A small project in a temporary folder, and the commands that are at work in it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

EXPERIMENT = """\
trainer: {max_epochs: 6, gradient_clip_val: 5.0}
model:
  class_path: focal_lab.tasks.Classification
  init_args:
    backbone: focal_micro
    backbone_options: {embed_dim: 8, depths: [1, 1, 1, 1]}
    num_classes: 10
    lr: 3e-3
    warmup_epochs: 1
data:
  class_path: focal_lab.data.DigitsClassification
  init_args: {batch_size: 32, num_train_images: 128, num_val_images: 32, num_test_images: 32}
"""
SWEEP = """\
title: stress
seeds: {seeds}
factors:
  window_size: [7, 14]
  use_shift: [false, true]
  focal_pool: [fc, mean, max]
set: {{trainer.max_epochs: {epochs}}}
allow_degenerate: true
"""


class World:
    """Sweeps of short runs: six different networks by so many seeds.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = folder / "sweeps" / "stress.yaml"
        self.runs: list[str] = []
        self._commands: list[subprocess.Popen[bytes]] = []
        (folder / "experiments" / "digits").mkdir(parents=True)
        (folder / "experiments" / "digits" / "classification.yaml").write_text(EXPERIMENT, encoding="utf-8")
        self.sweep.parent.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for command in self._commands:
            if command.poll() is None:
                os.killpg(command.pid, signal.SIGKILL)
                command.wait()

    def plan(self, seeds: int, epochs: int) -> None:
        """Write the sweep file; `runs` are the ids of what it needs."""
        self.sweep.write_text(SWEEP.format(seeds=seeds, epochs=epochs), encoding="utf-8")
        from focal_lab.sweep.plan.plan import make_plan

        here = Path.cwd()
        os.chdir(self.folder)
        try:
            self.runs = [run.id for run in make_plan(self.sweep).distinct_runs]
        finally:
            os.chdir(here)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin a command of focal-lab; what it says goes to `commands.log`."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(self.folder / "commands.log", "ab") as log:
            command = subprocess.Popen(
                [sys.executable, "-m", "focal_lab.cli", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        self._commands.append(command)
        return command

    def start_sweep(self, out: str = "runs", *arguments: str) -> subprocess.Popen[bytes]:
        """Begin a sweep."""
        return self.start("sweep", str(self.sweep), "--out", out, *arguments)

    def result(self, run: str, out: str = "runs") -> dict[str, Any] | None:
        """What a run came to, without what depends on the time; None before it has ended."""
        try:
            raw: dict[str, Any] = json.loads((self.folder / out / run / "result.json").read_text())
        except FileNotFoundError:
            return None
        return {key: raw[key] for key in ("metrics", "params", "gmacs", "identity", "seed")}

    def results(self, out: str = "runs") -> dict[str, Any]:
        """Of all runs that have ended."""
        found = {run: self.result(run, out) for run in self.runs}
        return {run: result for run, result in found.items() if result is not None}

    def ended(self) -> int:
        """How many runs have."""
        return sum((self.folder / "runs" / run / "result.json").exists() for run in self.runs)

    def trainings(self, out: str = "runs") -> dict[str, int]:
        """Run -> how often it was trained to the end, by its log."""
        logs = {run: self.folder / out / run / "log.txt" for run in self.runs}
        return {
            run: log.read_text().count("focal-lab: trained to the end.")
            for run, log in logs.items()
            if log.exists()
        }

    def training(self) -> list[int]:
        """Processes that train a run now."""
        from focal_lab.sweep.run_folder.layout import LOCK_FILE
        from focal_lab.utils.file_lock import is_locked

        locks = [self.folder / "runs" / run / LOCK_FILE for run in self.runs]
        said = [lock.read_text().strip() for lock in locks if is_locked(lock)]
        return [int(pid) for pid in said if pid]  # none yet where a process has only begun

    def wait(self, condition: Callable[[], bool], seconds: float = 900) -> bool:
        """Whether it became true in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def orphans(self) -> list[int]:
        """Processes of this project that are left when all commands have ended.

        The fork server that `plan` has started here is this process's own child, and no orphan.
        """
        found, ours = [], f"PPid:\t{os.getpid()}\n"
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                here = (folder / "cwd").resolve() == self.folder.resolve()
                if here and ours not in (folder / "status").read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def compare(world: World, expected: dict[str, Any]) -> list[str]:
    """What is wrong with the results: some are missing or differ, or were trained twice."""
    found, problems = world.results(), []
    missing = [run for run in world.runs if run not in found]
    different = [run for run, result in found.items() if result != expected[run]]
    twice = [run for run, count in world.trainings().items() if count > 1]
    if missing:
        problems.append(f"{len(missing)} results are missing")
    if different:
        problems.append(f"{len(different)} results differ from the undisturbed ones")
    if twice:
        problems.append(f"{len(twice)} runs were trained twice")
    if not world.wait(lambda: not world.orphans(), 15):
        problems.append(f"orphans: {world.orphans()}")
    return problems
