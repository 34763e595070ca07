"""What people type for several devices: Lightning's relaunch of the command, and the script for SLURM."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT
from support.tiny_task import read_checkpoint, tiny_config, write_config

from focal_lab import cli

SCRIPT = ROOT / "experiments/slurm/imagenet.sbatch"


def test_the_command_of_a_user_trains_on_two_devices() -> None:
    config = write_config(Path("tiny.yaml"), tiny_config(trainer={"max_epochs": 1}))
    command = [sys.executable, "-m", "focal_lab.cli", "fit", "--config", str(config), "--trainer.devices=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--trainer.strategy=ddp"], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in done.stderr
    last = read_checkpoint(Path("lightning_logs/version_0/checkpoints/last.ckpt"))
    assert (last["focal_lab_step"]["devices"], last["global_step"]) == (2, 1)


def test_the_script_for_slurm_starts_a_command_that_parses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/reported\n', encoding="utf-8")
    srun.chmod(0o755)
    variables = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8"}
    environment = os.environ | variables | {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", SCRIPT, "--data.batch_size=64"], env=environment, check=True)
    _, program, subcommand, *reported = (tmp_path / "reported").read_text().splitlines()
    assert (program, subcommand) == ("focal-lab", "fit")

    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", *reported, "--print_config"])
    assert not ended.value.code
    config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    trainer = config["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["default_root_dir"]) == (
        2,
        8,
        "runs/slurm-7",
    )
    assert trainer["logger"]["init_args"]["save_dir"] == "runs/slurm-7"
    assert config["data"]["init_args"]["batch_size"] == 64
