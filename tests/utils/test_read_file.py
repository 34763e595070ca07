from pathlib import Path

import pytest

from focal_lab.utils.read_file import read_file


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_all_bytes_are_read(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    assert read_file(tmp_path / "file") == content
    assert read_file(str(tmp_path / "file")) == content


def test_what_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "missing")
