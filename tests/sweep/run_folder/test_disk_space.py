"""Disk space is checked before a sweep, and a full disk is reported."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.disk_space import check_room, disk_full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte."""
    disk = tmp_path / "small disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_folder_is_made_where_there_is_room(tmp_path: Path) -> None:
    check_room(tmp_path / "a" / "runs")
    assert list((tmp_path / "a" / "runs").iterdir()) == []


def test_a_full_disk_is_named_with_its_mount_point(small_disk: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_room(small_disk / "runs")
    told = f"--out: the disk of {small_disk}/runs (mounted on {small_disk}) is full: 1.0 MB of 1.0 MB free"
    assert str(caught.value) == f"{told}; free some space, or choose another folder"


def test_a_read_only_disk_is_refused(small_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(remount, check=False, capture_output=True).returncode:
        pytest.skip("remounting is not permitted here")
    with pytest.raises(UserError, match=r"--out: cannot write to .*: Read-only file system; choose another"):
        check_room(small_disk / "runs")


def test_a_full_disk_is_found_among_the_causes_of_an_error(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("cannot save") from error
    except RuntimeError as error:
        told = disk_full(tmp_path, error)
    assert told is not None
    assert told.startswith(f"the disk of {tmp_path} (")
    assert disk_full(tmp_path, RuntimeError("cannot save")) is None
    assert disk_full(tmp_path, OSError(errno.EACCES, "Permission denied")) is None
    assert disk_full(tmp_path, None) is None


def test_a_full_disk_is_recognised_in_messages_of_worker_processes(tmp_path: Path, small_disk: Path) -> None:
    assert disk_full(tmp_path, "OSError: [Errno 28] No space left on device: 'a'") is not None
    # torch does not say why it failed: it is the disk only if that is full
    said = "RuntimeError: PytorchStreamWriter failed writing file data/0: file write failed"
    assert disk_full(tmp_path, said) is None
    assert disk_full(small_disk, said) is not None
