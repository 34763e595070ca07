"""The check for GPUs runs to its end on the CPU, in its tiny form."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support import ROOT

# parts that need no compiler and no prototype kernel; `fit` is tested with the command line
PARTS = "info,equality,maskgrad,blocks,speed,profile,large,risks"


def test_every_part_of_the_tiny_gpu_check_finds_figures_and_equal_networks(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu_check", "--tiny", "--budget", "400", "--only", PARTS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [part for part in PARTS.split(",") if {"stopped", "skipped", "status"} & found[part].keys()]
    assert found["equality"]["summary"]["failed"] == []
    assert found["equality"]["summary"]["cases"] == 18
    errors = [key for part in found.values() for key, value in part.items() if "error" in str(value)]
    assert errors == []
    assert found["maskgrad"]["only position biases learn"]["worst relative difference"] < 0.05
    assert "| 56 px, batch 1, train | focal_tiny |" in done.stdout
