"""What people type for several devices: Lightning's relaunch of the command, and the script for SLURM."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.plugins.precision import FSDPPrecision
from support import ROOT
from support.tiny_task import read_checkpoint, tiny_config, write_config

from focal_lab import cli
from focal_lab.training.cli import FocalCLI
from focal_lab.training.fsdp import Sharded

SCRIPT = ROOT / "experiments/slurm/imagenet.sbatch"
CONFIGS = [
    f"--config={ROOT}/experiments/imagenet/{name}.yaml" for name in ("classification", "large", "fsdp")
]


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
    srun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/told\n', encoding="utf-8")
    srun.chmod(0o755)
    variables = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8"}
    environment = os.environ | variables | {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", SCRIPT, "--data.batch_size=64"], env=environment, check=True)
    _, program, subcommand, *told = (tmp_path / "told").read_text().splitlines()
    assert (program, subcommand) == ("focal-lab", "fit")

    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", *told, "--print_config"])
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


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_focal_large_can_be_divided_among_eight_gpus(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: they are said to be, and the trainer is made, but nothing runs."""
    from lightning.fabric.accelerators import cuda
    from lightning.pytorch.accelerators import cuda as trainers

    for module in (cuda, trainers):
        monkeypatch.setattr(module, "num_cuda_devices", lambda: 8)
    monkeypatch.setattr(cuda, "_get_all_visible_cuda_devices", lambda: list(range(8)))
    small = ["--model.backbone=focal_micro_patch2_window7_28", "--model.backbone_options=null"]
    arguments = [*CONFIGS, "--trainer.accelerator=gpu", f"--trainer.precision={precision}", *small]
    made = FocalCLI(arguments, run=False)
    strategy: Any = made.trainer.strategy
    assert isinstance(strategy, Sharded)
    assert len(strategy.parallel_devices) == 8
    assert isinstance(strategy.precision_plugin, FSDPPrecision)
    assert strategy.precision_plugin.precision == precision
    assert (strategy.precision_plugin.scaler is not None) == (precision == "16-mixed")
    assert strategy.mixed_precision_config is None
