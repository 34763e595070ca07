"""Exact resume: a training resumed from any checkpoint draws and sees what the uninterrupted one would have.

Lightning restores weights, optimizer, schedule and counters, but restarts the data of an interrupted epoch
(PITFALLS) and does not save random states. The missing parts depend on Lightning's loops as of 2.6.
"""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DistributedSampler

from focal_lab.tasks.base import Task
from focal_lab.tasks.tested import gather
from focal_lab.training.resumed_options import MID_EPOCH, STEP, apply_options, changes, trainer_options

_VAL_PROGRESS = "epoch_loop.val_loop.batch_progress"


class ExactResume(Callback):
    """Derives every epoch's random numbers and data from (seed, epoch), and restores the position within one.

    The seed of a data module with an attribute `order_seed` is that, unless it is None.

    Loader processes are replaced at every epoch, even persistent ones, whose random states depend on earlier
    epochs.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch_data: dict[str, Any] = {}  # the data module's state when the epoch's iterator was made
        self._validation_rng: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._epoch_data, self._resumed = _data_state(trainer), None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called after Lightning has restored the data module and before it creates the first iterator."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._epoch_data, self._resumed = _data_state(trainer), checkpoint.get(MID_EPOCH)
        data = getattr(trainer, "datamodule", None)
        options = trainer_options(trainer, self.seed)
        changed = changes(checkpoint, pl_module, data, options)
        if isinstance(pl_module, Task):
            apply_options(checkpoint, pl_module, trainer, options, changed)
        elif changed:
            rank_zero_warn(
                f"--ckpt_path: {', '.join(changed)}: optimizer and schedule keep the checkpoint's options"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            _start_next_epoch(trainer)
        elif loop.restarted_mid_epoch and self._resumed is not None:
            self._restore_position(trainer, self._resumed)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reseed(trainer)
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
            # the same validation again: its loader has drawn already
            _restore_rng(trainer, self._resumed["rng"])
            self._resumed = None
            total: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            total.ready = total.started = total.completed  # see `_as_if_in_first_step`
        self._validation_rng = rng_state()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the trainer's options, and the position in the epoch, unless the epoch has ended."""
        checkpoint[STEP] = trainer_options(trainer, self.seed)
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if trainer.state.fn != TrainerFn.FITTING or epochs.processed == epochs.ready:
            return
        done: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        rng = rng_state()
        batches = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        validating = trainer.validating and batches.current.completed < batches.current.ready
        if validating:
            assert self._validation_rng is not None
            rng = self._validation_rng
            _as_if_in_first_step(checkpoint["loops"]["fit_loop"][_VAL_PROGRESS])
        checkpoint[MID_EPOCH] = {
            "data": self._epoch_data,
            "rng": gather(trainer, rng),
            "validating": validating,
            "ended": done.ready >= trainer.num_training_batches,
        }

    def _restore_position(self, trainer: Trainer, resumed: dict[str, Any]) -> None:
        loop = trainer.fit_loop
        done: Any = loop.epoch_loop.batch_progress.current
        if resumed.get("ended") and done.ready < trainer.num_training_batches:  # with another batch size
            done.ready = done.started = done.processed = done.completed = int(trainer.num_training_batches)
        batches_done = done.ready
        if batches_done >= trainer.num_training_batches:
            # only validation is missing: the next epoch's order follows from this one's
            _restore_data(trainer, self._epoch_data)
        else:
            self._reseed(trainer)
            self._make_iterator(trainer, resumed["data"])
            batches: Any = loop._data_fetcher
            for _ in range(batches_done):  # Lightning counts them itself
                next(batches.iterator)
        _restore_rng(trainer, resumed["rng"])

    def _reseed(self, trainer: Trainer) -> None:
        seed = getattr(getattr(trainer, "datamodule", None), "order_seed", None)
        if seed is not None:
            _seed_samplers(trainer, seed)
        reseed(self.seed if seed is None else seed, trainer)

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


def reseed(seed: int, trainer: Trainer) -> None:
    """Seed drop path, dropout, mixup and augmentation for the current epoch and process."""
    seed = (seed * 100003 + trainer.current_epoch) * 1009 + trainer.global_rank
    torch.manual_seed(seed)
    # timm's mixup draws from numpy, its augmentation from both
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _seed_samplers(trainer: Trainer, seed: int) -> None:
    """Seed the samplers that Lightning gives to loaders on several devices, with the seed of the run."""
    loaders = trainer.fit_loop._combined_loader
    for loader in [] if loaders is None else loaders.flattened:
        for owner in (loader, getattr(loader, "batch_sampler", None)):
            sampler = getattr(owner, "sampler", None)
            if isinstance(sampler, DistributedSampler):
                sampler.seed = seed


def _start_next_epoch(trainer: Trainer) -> None:
    """Continue after an epoch's end.

    With `max_steps` Lightning mistakes such a checkpoint for an interrupted epoch, ends it again and counts
    it twice.
    """
    loop = trainer.fit_loop
    loop.epoch_progress.increment_completed()
    loop._restarting = False
    loop.epoch_loop.restarting = False
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        part.reset_restart_stage()


def _as_if_in_first_step(progress: dict[str, Any]) -> None:
    """Make Lightning run the validation again, which it does only for one interrupted within a step."""
    total = progress["total"]["ready"] - progress["current"]["ready"]
    for name, before in {"total": total, "current": 0}.items():
        counts = dict.fromkeys(("processed", "completed"), before)
        progress[name] = {"ready": before + 1, "started": before + 1} | counts
    progress["is_last_batch"] = False


def _data_state(trainer: Trainer) -> dict[str, Any]:
    data = getattr(trainer, "datamodule", None)
    return {} if data is None else data.state_dict()


def _restore_data(trainer: Trainer, state: dict[str, Any]) -> None:
    if state:
        trainer.datamodule.load_state_dict(state)  # type: ignore[attr-defined]


def rng_state() -> dict[str, Any]:
    """All random states as plain values and tensors, because checkpoints are read with `weights_only`."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), *rest],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _restore_rng(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Restore this process's state; with another number of processes no resume is exact."""
    if len(states) == trainer.world_size:
        set_rng_state(states[trainer.global_rank])


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
