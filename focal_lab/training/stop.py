"""A training that is told to stop stops within a batch, and a later one goes on as if nothing had been."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from focal_lab.training.checkpoints import LAST_CHECKPOINT, STOPPED_CHECKPOINT

# the word after which a training is to go on one day; all others end it
STOP = "stop"


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The training ended because it was told to.

    Attributes:
        word: what it was told.
    """

    def __init__(self, word: str) -> None:
        super().__init__(f"told to {word}")
        self.word = word


class StopOnWord(Callback):
    """Asks at the end of every batch whether to stop, and raises Stopped.

    After `stop` a checkpoint is left from which the training goes on exactly (`resumption`), unless nothing
    was trained yet or everything was. For that it waits for the end of gradient accumulation and, where
    validation is due, for its first batch. Several processes agree every `log_every_n_steps` steps: they must
    stop at the same one, and asking each other costs time.

    Args:
        ask: answers None or the word; called at every batch.
        folder: the run's.
    """

    def __init__(self, ask: Callable[[], str | None], folder: Path) -> None:
        self.ask, self.folder = ask, folder
        self._word: str | None = None  # what this process heard
        self._agreed: str | None = None  # what all processes know

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last epoch's checkpoint is written: that of a stop before it has had its use."""
        if trainer.is_global_zero and _is_newer(
            self.folder / LAST_CHECKPOINT, than=self.folder / STOPPED_CHECKPOINT
        ):
            (self.folder / STOPPED_CHECKPOINT).unlink(missing_ok=True)

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
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        word = self._hear(trainer, batch_idx + 1)
        if word == STOP and not trainer.sanity_checking:
            self._save_and_raise(trainer)
        if word is not None:
            raise Stopped(word)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        word = self._hear(trainer, batch_idx + 1)
        if word is not None:
            raise Stopped(word)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """In a validation Lightning ends only that loader's processes; the others would be waited for."""
        trainer.fit_loop.teardown()

    def _hear(self, trainer: Trainer, step: int, *, may_agree: bool = True) -> str | None:
        self._word = self._word or self.ask()
        if trainer.world_size == 1:
            return self._word
        due = step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if self._agreed is None and may_agree and due:
            self._agreed = _agree(trainer, self._word)
        return self._agreed

    def _save_and_raise(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / STOPPED_CHECKPOINT)
        raise Stopped(STOP)


def _is_newer(file: Path, *, than: Path) -> bool:
    try:
        return file.stat().st_mtime_ns > than.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _agree(trainer: Trainer, word: str | None) -> str | None:
    """The word that any process heard; to stop counts most, because it loses least."""
    if not trainer.strategy.reduce_boolean_decision(word is not None, all=False):
        return None
    words: list[str | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(words, word)
    heard = sorted({word for word in words if word is not None})
    return STOP if STOP in heard else heard[0]
