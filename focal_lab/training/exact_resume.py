"""A training resumed from any checkpoint draws and sees what the undisturbed one would have.

Lightning restores weights, optimizer, schedule and counters, but begins the data of an interrupted epoch
anew (PITFALLS) and knows nothing of random numbers. Here are the missing parts. They lean on Lightning's
loops as they are in 2.6.
"""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from focal_lab.tasks.base import Task
from focal_lab.training.callbacks import reseed
from focal_lab.training.resumed_options import MID_EPOCH, changes

_VAL_PROGRESS = "epoch_loop.val_loop.batch_progress"


class ExactResume(Callback):
    """Makes every epoch's data anew from (seed, epoch), and finds the place in an interrupted epoch again.

    Goes behind ReseedEachEpoch of the same seed. A loader's processes are replaced at every epoch, even
    persistent ones: their random numbers would tell of the epochs before.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch_data: dict[str, Any] = {}  # the data module as it was when the epoch's iterator was made
        self._validation_rng: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._epoch_data, self._resumed = _data_state(trainer), None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning has restored the data module by now, and makes the first iterator later."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._epoch_data, self._resumed = _data_state(trainer), checkpoint.get(MID_EPOCH)
            if not isinstance(pl_module, Task):  # which applies what is given
                _warn_of_what_is_kept(checkpoint, trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            _begin_next_epoch(trainer)
        elif loop.restarted_mid_epoch and self._resumed is not None:
            self._find_place(trainer, self._resumed)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        if trainer.current_epoch == 0 or loop.is_resuming:
            # Lightning made the iterator in advance, before the epoch's seed was set
            self._make_iterator(trainer, self._epoch_data)
        else:
            self._epoch_data = _data_state(trainer)
            if loop._combined_loader is not None:
                loop._combined_loader.reset()  # Lightning makes the iterator next

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._resumed is not None and self._resumed["validating"]:
            # the same validation once more: its loader has drawn already
            _set_rng_state_of(trainer, self._resumed["rng"])
            self._resumed = None
            total: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            total.ready = total.started = total.completed  # see `_as_if_in_first_step`
        self._validation_rng = _rng_state()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say where in the epoch it is; at an epoch's end there is nothing to say."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if trainer.state.fn != TrainerFn.FITTING or epochs.processed == epochs.ready:
            return
        done: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        rng = _rng_state()
        batches = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        validating = trainer.validating and batches.current.completed < batches.current.ready
        if validating:
            assert self._validation_rng is not None
            rng = self._validation_rng
            _as_if_in_first_step(checkpoint["loops"]["fit_loop"][_VAL_PROGRESS])
        checkpoint[MID_EPOCH] = {
            "data": self._epoch_data,
            "rng": _from_all(trainer, rng),
            "validating": validating,
            "ended": done.ready >= trainer.num_training_batches,
        }

    def _find_place(self, trainer: Trainer, resumed: dict[str, Any]) -> None:
        loop = trainer.fit_loop
        done: Any = loop.epoch_loop.batch_progress.current
        if resumed.get("ended") and done.ready < trainer.num_training_batches:  # of a smaller size
            done.ready = done.started = done.processed = done.completed = int(trainer.num_training_batches)
        batches_done = done.ready
        if batches_done >= trainer.num_training_batches:
            # only validation is missing: the next epoch's order follows on this one's
            _restore_data(trainer, self._epoch_data)
        else:
            reseed(self.seed, trainer)
            self._make_iterator(trainer, resumed["data"])
            batches: Any = loop._data_fetcher
            for _ in range(batches_done):  # Lightning counts them itself
                next(batches.iterator)
        _set_rng_state_of(trainer, resumed["rng"])

    def _make_iterator(self, trainer: Trainer, data: dict[str, Any]) -> None:
        loop = trainer.fit_loop
        if loop._combined_loader is None or loop._data_fetcher is None:
            return
        _restore_data(trainer, data)
        self._epoch_data = data
        loop._combined_loader.reset()
        epochs: Any = loop.epoch_progress.current
        for loader in loop._combined_loader.flattened:
            _set_sampler_epoch(loader, epochs.processed)
        iter(loop._data_fetcher)


def _warn_of_what_is_kept(checkpoint: dict[str, Any], trainer: Trainer, module: LightningModule) -> None:
    data = getattr(trainer, "datamodule", None)
    changed = changes(checkpoint, module, data, {})
    if changed:
        rank_zero_warn(
            f"--ckpt_path: {', '.join(changed)}: the optimizer and its schedule keep the checkpoint's options"
        )


def _begin_next_epoch(trainer: Trainer) -> None:
    """Go on behind an epoch's end.

    With `max_steps` Lightning takes such a checkpoint for an interrupted epoch, ends that once more and
    counts it twice.
    """
    loop = trainer.fit_loop
    loop.epoch_progress.increment_completed()
    loop._restarting = False
    loop.epoch_loop.restarting = False
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        part.reset_restart_stage()


def _as_if_in_first_step(progress: dict[str, Any]) -> None:
    """What Lightning takes for a validation to be run again: inside a step; here before it, in its first."""
    total = progress["total"]["ready"] - progress["current"]["ready"]
    for name, before in {"total": total, "current": 0}.items():
        progress[name] = {
            "ready": before + 1,
            "started": before + 1,
            "processed": before,
            "completed": before,
        }
    progress["is_last_batch"] = False


def _data_state(trainer: Trainer) -> dict[str, Any]:
    data = getattr(trainer, "datamodule", None)
    return {} if data is None else data.state_dict()


def _restore_data(trainer: Trainer, state: dict[str, Any]) -> None:
    if state:
        trainer.datamodule.load_state_dict(state)  # type: ignore[attr-defined]


def _from_all(trainer: Trainer, value: dict[str, Any]) -> list[Any]:
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def _rng_state() -> dict[str, Any]:
    """All that is drawn from, as plain values and tensors: checkpoints are read with `weights_only`."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), *rest],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _set_rng_state_of(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """This process's state among those of all; with another number of processes nothing can be exact."""
    if len(states) == trainer.world_size:
        _set_rng_state(states[trainer.global_rank])


def _set_rng_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
