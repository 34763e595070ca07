"""A job of SLURM that runs out of time is requeued, and goes on within the epoch as if nothing had been.

Lightning's own handler saves wherever the signal finds it: between the weights' step and their average's, or
in other steps on other devices, which then wait for each other. Here all devices end the same batch first.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from focal_lab.training.stop import STOP, StopOnWord


class RequeueOnSignal(StopOnWord):
    """Waits for the signal that SLURM sends before a job's time is over (`sbatch --signal=SIGUSR1@300`).

    Then it writes Lightning's checkpoint for that, `hpc_ckpt_N.ckpt` in the trainer's root folder, in place
    of earlier ones, and asks SLURM to queue the job again. Where SLURM does not, the training goes on until
    its time is over. Outside of SLURM nothing happens.
    """

    def __init__(self) -> None:
        super().__init__(lambda: STOP if self._signalled else None, Path())
        self._signalled = False
        self._before: tuple[int, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be there before Lightning, which leaves a signal alone that somebody waits for."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            number = environment.requeue_signal
            assert number is not None
            self._before = number, signal.signal(number, self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the signal as it was."""
        if self._before is not None:
            signal.signal(*self._before)
            self._before = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The checkpoint of a stop stays: a job that is requeued without --ckpt_path begins from it."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Outside of SLURM the devices need not ask each other."""
        if self._before is not None:
            super().on_train_batch_end(trainer, pl_module, *arguments)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        batches = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        waiting = self._before is not None and not trainer.sanity_checking
        if waiting and self._hear(trainer, batches.current.ready) == STOP:
            self._save_and_raise(trainer)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """A test is short, and begun anew."""

    def _note(self, number: int, frame: Any) -> None:
        self._signalled = True

    def _save_and_raise(self, trainer: Trainer) -> None:
        root = str(trainer.default_root_dir)
        path = trainer.strategy.broadcast(trainer._checkpoint_connector.hpc_save_path(root))
        trainer.save_checkpoint(path)
        told = None
        if trainer.is_global_zero:
            for older in Path(root).glob("hpc_ckpt_*.ckpt"):
                if older != Path(path):
                    older.unlink()
            told = _requeue()
        told = trainer.strategy.broadcast(told)
        if told is None:
            rank_zero_info(f"SLURM will start this job again, from {path}")
            raise SystemExit(0)
        rank_zero_warn(f"{path} is written, but the job is not queued again: {told}; the training goes on")
        self._signalled, self._word, self._agreed = False, None, None


def _requeue() -> str | None:
    """Queue this job again; why that was not possible."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ.get("SLURM_JOB_ID", "")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = shutil.which("scontrol")
    if command is None:
        return "there is no scontrol here"
    done = subprocess.run([command, "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"scontrol requeue {job}: {' '.join(done.stderr.split()) or f'exit status {done.returncode}'}"
