"""Data loaders, and the number of their worker processes where `num_workers` is not set."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

# More did not help in any measurement, and each holds two batches and its own open files.
_MOST = 16
_TOO_FEW = 2  # cores that are all needed for training


def make_loader(
    dataset: Dataset[Any], trainer: Any, workers: int | None, collate: Callable[[Any], Any], **options: Any
) -> DataLoader[Any]:
    """A loader with so many worker processes; None chooses by the machine and the Lightning trainer."""
    if workers is None:
        workers = choose_workers(trainer)
    on_gpu = torch.cuda.is_available() and (trainer is None or trainer.strategy.root_device.type == "cuda")
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
        collate_fn=collate,
        **options,
    )


def choose_workers(trainer: Any = None) -> int:
    """Worker processes for one training process.

    On a GPU: this process's share of the cores, or of those that a sweep gave to its run. On the CPU, where
    the cores train: one, and none up to two cores, which it would only take from the training (docs/data.md).

    Args:
        trainer: a Lightning trainer; without one, one process is assumed.
    """
    import joblib  # takes a tenth of a second

    device = "cuda" if torch.cuda.is_available() else "cpu"
    local = 1
    if trainer is not None:
        device, local = trainer.strategy.root_device.type, max(1, trainer.num_devices)
    cores: int = joblib.cpu_count()  # by the process's affinity and its container's quota
    share = max(1, cores // local)
    if device == "cpu":
        return int(min(share, torch.get_num_threads()) > _TOO_FEW)
    if "OMP_NUM_THREADS" not in os.environ:  # launchers set that, and not always to a share of the machine
        share = min(share, torch.get_num_threads())
    return min(share, _MOST)
