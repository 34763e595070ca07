"""Requeues a SLURM job before its time limit; the job resumes within the epoch, exactly.

Lightning's own handler saves wherever the signal finds it: between the step of the weights and that of their
average, or at different steps on different devices, which then wait for each other. Here all devices finish
the same batch first.
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
    """Handles the signal that SLURM sends before a job's time limit (`sbatch --signal=SIGUSR1@300`).

    Writes Lightning's checkpoint for that, `hpc_ckpt_N.ckpt` in the trainer's root folder, in place of
    earlier ones, and requeues the job. If that fails, the training continues until its time limit. Does
    nothing outside SLURM.
    """

    def __init__(self) -> None:
        super().__init__(lambda: STOP if self._signalled else None, Path())
        self._signalled = False
        self._before: tuple[int, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handler before Lightning does, which leaves a handled signal alone."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            number = environment.requeue_signal
            assert number is not None
            self._before = number, signal.signal(number, self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._before is not None:
            signal.signal(*self._before)
            self._before = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the checkpoint: a job requeued without --ckpt_path starts from it."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        if self._before is not None:  # outside SLURM the devices need not agree
            super().on_train_batch_end(trainer, pl_module, *arguments)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        batches = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        waiting = self._before is not None and not trainer.sanity_checking
        if waiting and self._hear(trainer, batches.current.ready) == STOP:
            self._save_and_raise(trainer)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """A test is short and simply restarted."""

    def _note(self, number: int, frame: Any) -> None:
        self._signalled = True

    def _save_and_raise(self, trainer: Trainer) -> None:
        root = str(trainer.default_root_dir)
        path = trainer.strategy.broadcast(trainer._checkpoint_connector.hpc_save_path(root))
        trainer.save_checkpoint(path)
        problem = None
        if trainer.is_global_zero:
            for older in Path(root).glob("hpc_ckpt_*.ckpt"):
                if older != Path(path):
                    older.unlink()
            problem = _requeue()
        problem = trainer.strategy.broadcast(problem)
        if problem is None:
            rank_zero_info(f"SLURM will restart this job, from {path}")
            raise SystemExit(0)
        rank_zero_warn(f"{path} is written, but the job was not requeued: {problem}; the training continues")
        self._signalled, self._word, self._agreed = False, None, None


def _requeue() -> str | None:
    """Requeue this job; the reason if that failed."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = shutil.which("scontrol")
    if command is None:
        return "there is no scontrol here"
    done = subprocess.run([command, "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"scontrol requeue {job}: {' '.join(done.stderr.split()) or f'exit status {done.returncode}'}"
