import os
from pathlib import Path
from typing import Any

import pytest

from focal_lab.utils.atomic_files import write_atomic


def test_writing_makes_the_folder_and_replaces_the_old_text(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.json", "old")
    write_atomic(tmp_path / "new" / "a.json", "ä new")
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == "ä new"
    assert os.listdir(tmp_path / "new") == ["a.json"]


def test_a_text_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a.json", "half of a new text \ud800")
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    write_atomic(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
