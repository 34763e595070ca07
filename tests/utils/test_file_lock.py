"""Locks that die with their holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from focal_lab.utils.file_lock import FileLock, is_locked


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    first.release()
    assert second.acquire(wait=False)


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_lock_file_has_the_rights_of_any_other_file(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        FileLock(tmp_path / "lock").acquire()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == mode


def test_is_locked_neither_makes_the_file_nor_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with FileLock(path) as lock:
        assert is_locked(path)
        lock.release()
        assert not is_locked(path)
        assert lock.acquire(wait=False)


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom focal_lab.utils.file_lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert not is_locked(path)
