import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from support.tiny_task import tiny_config

from focal_lab.training.checkpoints import io as checkpoint_io
from focal_lab.training.checkpoints.io import UNFINISHED, AtomicCheckpointIO
from focal_lab.training.fit import build, resumable, train

FILE = Path("checkpoints/last.ckpt")
OLD, NEW = {"w": torch.zeros(10)}, {"w": torch.ones(1 << 18)}  # the new one has 1 MB


def read() -> dict[str, Any]:
    state: dict[str, Any] = torch.load(FILE, weights_only=True)
    return state


def names() -> list[str]:
    return sorted(path.name for path in FILE.parent.iterdir())


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Larger files cannot be written: the write fails with EFBIG, as it would with ENOSPC on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


def test_a_checkpoint_replaces_the_old_one_and_leaves_nothing_else() -> None:
    for state in (OLD, NEW):
        AtomicCheckpointIO().save_checkpoint(state, FILE)
        assert torch.equal(read()["w"], state["w"])
        assert names() == ["last.ckpt"]


@pytest.mark.parametrize("size", [0, 100, 4096, 1 << 19])
def test_a_full_disk_is_reported_with_the_file_and_the_old_checkpoint_stays(size: int) -> None:
    AtomicCheckpointIO().save_checkpoint(OLD, FILE)
    with files_up_to(size), pytest.raises(OSError, match=r"checkpoints/last\.ckpt") as caught:
        AtomicCheckpointIO().save_checkpoint(NEW, FILE)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(FILE)
    assert torch.equal(read()["w"], OLD["w"])
    assert names() == ["last.ckpt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_later_is_reported_just_the_same(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    AtomicCheckpointIO().save_checkpoint(OLD, FILE)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io.os, step, fail)
        with pytest.raises(OSError, match=r"No space left on device: 'checkpoints/last\.ckpt'"):
            AtomicCheckpointIO().save_checkpoint(NEW, FILE)
    assert torch.equal(read()["w"], OLD["w"])
    assert names() == ["last.ckpt"]


class Unwilling:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_a_writer_that_is_interrupted_leaves_the_old_checkpoint() -> None:
    AtomicCheckpointIO().save_checkpoint(OLD, FILE)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint(NEW | {"x": Unwilling()}, FILE)
    assert torch.equal(read()["w"], OLD["w"])
    assert names() == ["last.ckpt"]


def test_leftovers_of_killed_writers_are_removed_and_files_of_live_ones_are_not() -> None:
    FILE.parent.mkdir()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout
    for process in (int(dead), os.getppid()):
        (FILE.parent / f"{UNFINISHED}{process}").write_bytes(b"half")
    (FILE.parent / ".unfinished").write_bytes(b"")
    assert "ckpt" not in UNFINISHED
    AtomicCheckpointIO().save_checkpoint(NEW, FILE)
    assert names() == [".unfinished", f"{UNFINISHED}{os.getppid()}", "last.ckpt"]


def test_a_training_writes_so_and_a_full_disk_ends_it_with_the_last_epoch_kept() -> None:
    config = tiny_config(trainer={"max_epochs": 1})
    train(config, Path("run"))
    last = Path("run/checkpoints/last.ckpt")
    size = last.stat().st_size
    cli = build(tiny_config(), Path("run"))
    with files_up_to(size // 2), pytest.raises(OSError, match=r"run/checkpoints/\w+\.ckpt"):
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=last)
    assert resumable(last)
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_the_users_own_way_of_writing_is_kept() -> None:
    plugin = {"class_path": "lightning.fabric.plugins.TorchCheckpointIO"}
    trainer = build(tiny_config(trainer={"plugins": [plugin]}), Path("run")).trainer
    assert type(trainer.strategy.checkpoint_io) is TorchCheckpointIO
    assert type(build(tiny_config(), Path("run")).trainer.strategy.checkpoint_io) is AtomicCheckpointIO
