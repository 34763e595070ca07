"""Memory: what a pass adds at its peak, in a process of its own."""

import mmap
from pathlib import Path

import pytest
import torch

from focal_lab.errors import UserError
from focal_lab.tools.profile.measure import measure_memory, resident_growth

MEBIBYTE = 2**20
MICRO = "focal_micro_patch2_window7_28"
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc"
)


@needs_proc
def test_memory_that_a_pass_frees_again_counts_at_its_peak() -> None:
    def run() -> None:
        # not tensors: in the tests' own process they may lie in memory that an earlier test left behind
        for mebibytes in (64, 48):
            with mmap.mmap(-1, mebibytes * MEBIBYTE) as memory:
                for _ in range(mebibytes):
                    memory.write(bytes(MEBIBYTE))

    assert resident_growth(run) == pytest.approx(64 * MEBIBYTE, rel=0.02)


@needs_proc
def test_memory_from_before_the_pass_does_not_count() -> None:
    before = torch.ones(64 * MEBIBYTE, dtype=torch.uint8)
    grown = resident_growth(lambda: before.add_(1))
    assert grown is not None
    assert grown < 4 * MEBIBYTE


@needs_proc
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, its memory is measured")
def test_training_keeps_more_than_inference() -> None:
    inference, training = (
        measure_memory(MICRO, {"num_classes": 10}, (8, 3, 28, 28), training=training)
        for training in (False, True)
    )
    assert inference
    assert training
    # at the least the gradients of 0.58 million parameters
    assert training > inference + 4 * 0.58e6


def test_a_process_that_fails_says_why_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^focal_micro_\w+: the process that measures memory: .*batch-size"):
        measure_memory(MICRO, {}, (1, 4, 28, 28), training=False)
