"""This machine: its identity, its CPU cores and its GPUs."""

import os
import socket
from functools import cache
from pathlib import Path


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
