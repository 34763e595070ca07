"""Keeps freed memory in the process, so that training steps do not page-fault for it again.

The parameters are those of glibc's mallopt(3).
"""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free instead of returning it to the system; whether it accepted.

    Every step needs the same memory again, and memory from the system costs a page fault every 4 KiB: 10 to
    25 % of a training step on the CPU (docs/performance.md). The process keeps its peak size. Does nothing
    with another C library, or where `MALLOC_*_` or `GLIBC_TUNABLES` is set in the environment.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl; on Windows CDLL(None) is a TypeError
        return False
    settings = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: 1 << 26}
    return all(mallopt(key, value) == 1 for key, value in settings.items())
