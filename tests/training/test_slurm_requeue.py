"""Jobs of SLURM: variables, signal and Lightning's environment are real ones, and `scontrol` is a script."""

import os
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import Callback
from lightning.fabric.plugins.environments import SLURMEnvironment
from support.recorded_fit import folder_config, in_processes, write_pictures
from support.tiny_task import read_checkpoint, write_config

from focal_lab import cli

LAST = Path("out/lightning_logs/job/checkpoints/last.ckpt")
STOPPED = Path("out/hpc_ckpt_1.ckpt")
JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "focal", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}


class SignalAt(Callback):
    """SLURM's signal comes to each process, but nobody knows where it is by then."""

    def __init__(self, batch: int, validating: bool = False) -> None:
        self.batch, self.validating = batch, validating
        self._seen = 0

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        self._seen += 1
        if not self.validating and self._seen == self.batch + trainer.global_rank:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if self.validating and self._seen and not trainer.global_rank:
            os.kill(os.getpid(), signal.SIGUSR1)
            self._seen = -100


def job(count: int, path: str | None, batch: int, validating: bool) -> tuple[int, bool]:
    """`focal-lab fit` as srun starts it; its exit status, and whether Lightning found SLURM."""
    rank = os.environ["RANK"]
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
        del os.environ[name]
    os.environ |= JOB | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    os.environ |= {"SLURM_NTASKS": str(count), "SLURM_NTASKS_PER_NODE": str(count)}
    if path is not None:
        os.environ["PATH"] = path
    signalled = [f"--trainer.callbacks+={__name__}.SignalAt", f"--trainer.callbacks.batch={batch}"]
    signalled.append(f"--trainer.callbacks.validating={str(validating).lower()}")
    command = ["fit", "--config", "job.yaml", "--ckpt_path=last", *(signalled if batch else [])]
    try:
        return cli.main(command), SLURMEnvironment.detect()
    except SystemExit as ended:
        return ended.code, SLURMEnvironment.detect()  # type: ignore[return-value]


def run(count: int = 1, path: str | None = None, batch: int = 0, validating: bool = False) -> list[Any]:
    return in_processes(count, job, count, path, batch, validating)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def write_job(root: Path, devices: int = 1, log_every: int = 2) -> None:
    """As the scripts of experiments/slurm do it: one folder for all starts of a job."""
    config = folder_config(
        root,
        batch_size=16,
        trainer={"devices": devices, "default_root_dir": "out", "log_every_n_steps": log_every}
        | ({"strategy": "ddp"} if devices > 1 else {}),
        drop_path=0.3,
        mixup=0.8,
        ema_decay=0.5,
    )
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "out", "version": "job"},
    }
    write_config(Path("job.yaml"), config)


@pytest.fixture
def scontrol(tmp_path: Path) -> str:
    """A PATH with a scontrol that notes what it is reported."""
    script = tmp_path / "bin/scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/reported\n', encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{script.parent}:{os.environ['PATH']}"


def state(path: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in read_checkpoint(path)["state_dict"].items()}


def assert_same(path: Path, other: Path) -> None:
    ours, theirs = state(path), state(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


# with two processes 3 batches an epoch and one of validation; they agree every `log_every_n_steps` batches
@pytest.mark.parametrize(
    ("devices", "batch", "validating", "step"),
    [(1, 3, False, 2), (2, 1, False, 2), (2, 1, True, 3)],
    ids=["amid accumulated batches", "two processes", "in validation"],
)
def test_a_job_that_is_signalled_is_queued_again_and_goes_on_exactly(
    devices: int, batch: int, validating: bool, step: int, root: Path, scontrol: str, tmp_path: Path
) -> None:
    write_job(root, devices, log_every=1 if validating else 2)
    assert run(devices) == [(0, True)] * devices
    Path("out").rename("undisturbed")

    assert run(devices, scontrol, batch, validating) == [(0, True)] * devices
    assert (tmp_path / "reported").read_text() == "requeue 4711\n"
    assert read_checkpoint(STOPPED)["global_step"] == step
    assert run(devices, scontrol) == [(0, True)] * devices
    assert_same(LAST, "undisturbed" / LAST.relative_to("out"))
    assert (tmp_path / "reported").read_text() == "requeue 4711\n"


def test_without_scontrol_the_training_goes_on(root: Path) -> None:
    write_job(root)
    assert run(1, None, 3) == [(0, True)]
    assert STOPPED.exists()
    assert read_checkpoint(LAST)["global_step"] == 6
