"""This machine, and how many runs a command trains on it at a time, with which GPUs and how many threads."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.plan.runs import Run


@dataclass(frozen=True)
class DeviceSlots:
    """Where the runs of one command are trained.

    Attributes:
        count: runs at a time.
        threads: CPU threads of each process.
        names: GPUs of this machine as CUDA_VISIBLE_DEVICES names them; none on a CPU.
        each: devices of a slot.
    """

    count: int
    threads: int
    names: tuple[str, ...] = ()
    each: int = 1

    def __str__(self) -> str:
        number, unit = (self.each, "GPU") if self.names else (self.threads, "thread")
        return f"{self.count} at a time with {number} {unit}{'s' * (number != 1)} each"

    def devices(self, slot: int, run: Run) -> str | None:
        """The GPUs of a run in that slot; None on a CPU."""
        if not self.names:
            return None
        # whole groups only: of three GPUs, runs on two each share the first two
        first = slot % (len(self.names) // self.each) * self.each
        return ",".join(self.names[first : first + devices_asked(run)])


def devices_asked(run: Run) -> int:
    """How many devices a run's configuration trains on; `auto` is one."""
    asked = run.config.get("trainer", {}).get("devices", 1)
    return asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 else 1


def find_slots(runs: Iterable[Run], gpus: int, workers: int | None, total: int) -> DeviceSlots:
    """One slot for each group of GPUs, or on a CPU for each core up to four.

    Small models gain nothing from more threads.

    Args:
        runs: what is to be trained.
        gpus: how many torch sees here.
        workers: how many runs the user wants at a time; None for as many as fit.
        total: how many runs there are.

    Raises:
        UserError: a run needs more devices than this machine has.
    """
    each = max((devices_asked(run) for run in runs), default=1)
    there = gpus or cores()
    if each > there:
        what = f"{gpus} GPUs" if gpus else f"{there} CPU cores and no GPU"
        raise UserError(
            f"a run is configured for {each} devices, this machine has {what}; "
            f"use --devices-per-run {there} or fewer (the batch is smaller then)",
            key="trainer.devices",
        )
    fitting = gpus // each if gpus else max(1, min(4, there // each))
    count = max(1, min(workers or fitting, total))
    threads = max(1, cores() // (count * each))
    return DeviceSlots(count, min(threads, chosen_threads() or threads), tuple(visible_devices(gpus)), each)


@cache
def machine_id() -> str:
    """Identifies the running kernel: processes with the same ID see each other's file locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def worker_name() -> str:
    """`host:pid`, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_threads() -> int | None:
    """Threads of a process as the user chose them by OMP_NUM_THREADS; None if not chosen."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(chosen) if chosen.isdigit() and int(chosen) > 0 else None


def visible_devices(count: int) -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that torch counted here."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in chosen.split(",") if name.strip()][:count]
