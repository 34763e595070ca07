"""The C library's memory, kept by a process that trains."""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what tensors free instead of returning it to the system.

    Every step needs the same memory again, and memory from the system costs a page fault every 4 KiB: a
    tenth to a quarter of a training step on the processor (docs/performance.md). The process stays as large
    as it was at its peak. Nothing happens with another C library, or where the user has chosen by himself
    (`MALLOC_*_` or `GLIBC_TUNABLES` in the environment).

    Returns:
        Whether the C library took it.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows has no handle of itself
        return False
    settings = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: 1 << 26}
    return all(mallopt(key, value) == 1 for key, value in settings.items())
