"""Stops a training after a batch, on request or before SLURM's time limit, so that it resumes exactly."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from focal_lab.tasks.tested import gather
from focal_lab.training.callbacks import is_log_step
from focal_lab.training.checkpoints import LAST_CHECKPOINT, STOPPED_CHECKPOINT

# the word after which a training may be resumed; all others end it
STOP = "stop"


class Stopped(Exception):  # noqa: N818  (not an error)
    """The training was stopped by the request `word`."""

    def __init__(self, word: str) -> None:
        super().__init__(f"stopped by the request: {word}")
        self.word = word


class StopOnWord(Callback):
    """Asks after every batch whether to stop, and raises Stopped.

    After `stop` it leaves a checkpoint from which `exact_resume` continues, unless nothing or everything was
    trained. For that it waits for the end of gradient accumulation and, where validation is due, for its
    first batch. Several processes agree every `log_every_n_steps` steps, because they must stop at the same
    one and agreeing takes time.

    Args:
        ask: returns None or the word; called after every batch.
        folder: the run's.
    """

    def __init__(self, ask: Callable[[], str | None], folder: Path) -> None:
        self.ask, self.folder = ask, folder
        self._word: str | None = None  # received by this process
        self._agreed: str | None = None  # known to all processes

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of an earlier stop once the last epoch's is newer."""
        last, stopped = self.folder / LAST_CHECKPOINT, self.folder / STOPPED_CHECKPOINT
        there = trainer.is_global_zero and last.exists() and stopped.exists()
        if there and last.stat().st_mtime_ns > stopped.stat().st_mtime_ns:
            stopped.unlink()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop
        word = self._hear(trainer, trainer.global_step, may_agree=not loop._should_accumulate())
        if word is None:
            return
        if word != STOP:
            raise Stopped(word)
        at_end = loop.epoch_loop._is_training_done  # of the epoch, or of all
        fetcher = loop._data_fetcher
        validates = fetcher is not None and loop.epoch_loop._should_check_val_fx(fetcher)
        if not (loop._should_accumulate() or at_end or validates):
            self._save_and_raise(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        word = self._hear(trainer, batch_idx + 1)
        if word == STOP and not trainer.sanity_checking:
            self._save_and_raise(trainer)
        if word is not None:
            raise Stopped(word)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        word = self._hear(trainer, batch_idx + 1)
        if word is not None:
            raise Stopped(word)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Shut down the training loader's processes, which Lightning does not do during validation."""
        trainer.fit_loop.teardown()

    def _hear(self, trainer: Trainer, step: int, *, may_agree: bool = True) -> str | None:
        self._word = self._word or self.ask()
        if trainer.world_size == 1:
            return self._word
        due = self._agreed is None and may_agree and is_log_step(trainer, step)
        if due and trainer.strategy.reduce_boolean_decision(self._word is not None, all=False):
            words = set(gather(trainer, self._word)) - {None}
            self._agreed = STOP if STOP in words else min(words)  # STOP loses the least work
        return self._agreed

    def _save_and_raise(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / STOPPED_CHECKPOINT)
        raise Stopped(STOP)


class RequeueOnSignal(StopOnWord):
    """Handles the signal that SLURM sends before a job's time limit (`sbatch --signal=SIGUSR1@300`).

    Writes Lightning's checkpoint for that, `hpc_ckpt_N.ckpt` in the trainer's root folder, in place of
    earlier ones, and requeues the job. If that fails, the training continues until its time limit. Does
    nothing outside SLURM.

    Lightning's own handler saves wherever the signal finds it: between the step of the weights and that of
    their average, or at different steps on different devices, which then wait for each other.
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
