"""The number of worker processes where `num_workers` is not set."""

import math
import os
from pathlib import Path
from typing import Any

import torch

# More did not help in any measurement, and each holds two batches and its own open files.
_MOST = 16
_TOO_FEW = 2  # cores that are all needed for training
_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """CPU cores that this process may use, by its affinity and its container's quota, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(_CGROUPS)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(root: Path) -> float | None:
    """CPU cores that a container may use, None for no limit; `root` holds control groups, version 1 or 2."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # missing, or "max"
        return None


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
    share = max(1, usable_cores() // local)
    if device == "cpu":
        return int(min(share, torch.get_num_threads()) > _TOO_FEW)
    if "OMP_NUM_THREADS" not in os.environ:  # launchers set that, and not always to a share of the machine
        share = min(share, torch.get_num_threads())
    return min(share, _MOST)
