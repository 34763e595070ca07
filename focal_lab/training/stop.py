"""Stops a training within a batch on request, so that a later one resumes exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

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

    After `stop` it leaves a checkpoint from which the training resumes exactly (`resumption`), unless nothing
    or everything was trained. For that it waits for the end of gradient accumulation and, where validation is
    due, for its first batch. Several processes agree every `log_every_n_steps` steps, because they must stop
    at the same one and agreeing takes time.

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
