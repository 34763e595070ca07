"""`focal-lab plan`, with real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.commands.plan_command import plan_command
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.plan import make_plan

pytestmark = pytest.mark.usefixtures("project")

PLAN = [sys.executable, "-m", "focal_lab.cli", "plan"]
TINY = ["--set", "data.num_train_images=256", "--set", "data.batch_size=32"]
LOADED = """
import sys
from focal_lab.report.power_plan import metric_powers, power_text
from focal_lab.sweep.commands.plan_command import plan_command
if __name__ == "__main__":
    plan_command(sys.argv[1:], (), metric_powers, power_text)
    print("torch" in sys.modules, file=sys.stderr)
"""


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PLAN, *arguments], capture_output=True, text=True, timeout=240)


def test_time_and_memory_are_measured_once_and_a_budget_holds() -> None:
    path = str(write_sweep(factors={"window_size": [7]}, seeds=3))
    first = plan(path, *TINY, "--workers", "1", "--json")
    assert first.returncode == 0, first.stderr
    assert "measuring a few steps of 1 kind of runs" in first.stderr
    reported = json.loads(first.stdout)
    assert reported["unknown"] == 0
    for run in reported["runs"]:
        assert run["estimated_from"] == "measured"
        assert 0.5 < run["seconds"] < 300
        assert 100 < run["memory_mb"] < 8000
        assert run["params"] > 500_000
    assert sorted(file.name for file in Path("runs").glob("*.json")) == [
        "identity.json",
        "measured.json",
    ]
    second = plan(path, *TINY, "--workers", "1", "--budget", "1s")
    assert second.returncode == 2
    assert "measuring" not in second.stderr
    assert second.stderr.startswith("focal-lab: --budget: 3 runs need ")
    assert "3 runs: 0 reused, 3 to train" in second.stdout


def test_without_measuring_the_command_itself_loads_no_torch() -> None:
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1, set={"trainer.devices": 999}))
    Path("loaded.py").write_text(LOADED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "loaded.py", path, "--no-measure", "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stderr.strip().endswith("False")
    # a plan for a larger machine is a plan
    assert "Not on this machine: trainer.devices: a run is configured for 999 devices" in done.stdout
    assert "1 run: 0 reused, 1 to train" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "40"], "--budget: '40' is not a duration (add a unit: 40s, 40m or 40h)"),
        (["--workers", "0"], "--workers: 0 is too few; use 1 or more"),
        (["--seeds", "0"], "--seeds: 0 is neither a number of seeds nor a list of different seeds"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_looked_at(arguments: list[str], message: str) -> None:
    refused = plan(str(write_sweep()), *arguments)
    assert refused.returncode == 2
    assert refused.stderr.strip() == f"focal-lab: {message}"


def test_a_plan_needs_no_data_and_sweeps_and_workers_refuse_before_it_trains() -> None:
    folders = {"data.class_path": "focal_lab.data.ImageFolderDataModule", "data.root": "nowhere"}
    folders |= {"data.image_size": 28}
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1, set=folders))
    reported = "nowhere: data.init_args.root: is not a folder, for 7"
    planned = plan(path)
    assert planned.returncode == 0, planned.stderr
    assert "measuring" not in planned.stderr
    assert planned.stdout.endswith(f"Not on this machine, focal-lab sweep would refuse: {reported}\n")
    command = [sys.executable, "-m", "focal_lab.cli", "sweep", path]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (refused.returncode, refused.stderr) == (2, f"focal-lab: {path}: {reported}\n")
    # as if it had been planned on a machine that has the data
    made = make_plan(Path(path))
    write_manifest(Path("runs"), Manifest(made.study, "small", "digits", "Small", made.distinct_runs))
    command = [sys.executable, "-m", "focal_lab.cli", "worker", "--study", made.study]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (refused.returncode, refused.stderr) == (2, f"focal-lab: {reported}\n")
    assert not [folder for folder in Path("runs").iterdir() if (folder / "config.yaml").exists()]


@pytest.mark.parametrize("points", [0.0, -1.0, 0.001, 50.0])
def test_a_difference_of_no_size_is_refused(points: float) -> None:
    with pytest.raises(UserError, match=r"^--power: .* is not a difference"):
        plan_command(["window_size", "--power", str(points)], (), lambda *_: [], lambda *_: "")
