"""Who is at work: this machine, its cores, its GPUs."""

import os
import socket
from functools import cache
from pathlib import Path


@cache
def machine_id() -> str:
    """Differs between any two kernels: locks are seen by whoever has the same one, whatever he calls it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def worker_name() -> str:
    """What people look for: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_threads() -> int | None:
    """How many threads the user wants a process to have, by OMP_NUM_THREADS; None if he does not say."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(chosen) if chosen.isdigit() and int(chosen) > 0 else None


def visible_devices(count: int) -> list[str]:
    """How CUDA_VISIBLE_DEVICES names each of the GPUs that torch counted here."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in chosen.split(",") if name.strip()][:count]
