"""Small tensors: one thread is as fast as two, and leaves the other core to the next test worker."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def chunks_of_any_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use chunks for small maps, too, so that tests cover them."""
    monkeypatch.setattr("focal_lab.backbones.attention.fused.FEW_WINDOWS", 0)
