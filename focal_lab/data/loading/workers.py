"""The number of worker processes where `num_workers` is not set."""

import os
from typing import Any

import joblib
import torch

# More did not help in any measurement, and each holds two batches and its own open files.
_MOST = 16
_TOO_FEW = 2  # cores that are all needed for training


def choose_workers(trainer: Any = None) -> int:
    """Worker processes for one training process.

    On a GPU: this process's share of the cores, or of those that a sweep gave to its run. On the CPU, where
    the cores train: one, and none up to two cores, which it would only take from the training (docs/data.md).

    Args:
        trainer: a Lightning trainer; without one, one process is assumed.
    """
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
