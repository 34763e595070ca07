"""Memory for intermediate results on the processor, kept from call to call.

Fresh memory costs a page fault every 4 KiB, which takes longer than the arithmetic that fills it; memory that
was used a moment ago is still in cache.
"""

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

# A kept block has at most this many bytes; what huge pictures need is not worth keeping.
KEPT_BYTES = 1 << 26


class Scratch(threading.local):
    """Named blocks of memory of one dtype, a thread's own: backward runs in another thread than forward."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.blocks: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uninitialised contiguous memory of that shape; what was taken by this name before is lost."""
        size = math.prod(shape)
        block = self.blocks.get(name)
        if block is None or block.numel() < size:
            with torch.inference_mode(False):  # an inference tensor could never serve a training step
                block = torch.empty(size, dtype=self.dtype)
            if size * block.element_size() <= KEPT_BYTES:
                self.blocks[name] = block
        return block[:size].view(*shape)


_scratches: dict[torch.dtype, Scratch] = {}


def release() -> None:
    """Give the calling thread's memory back, so that a measurement begins with none."""
    for scratch in _scratches.values():
        scratch.blocks.clear()


def scratch_of(dtype: torch.dtype) -> Scratch:
    """The calling thread's memory for that dtype."""
    if dtype not in _scratches:
        _scratches[dtype] = Scratch(dtype)
    return _scratches[dtype]
