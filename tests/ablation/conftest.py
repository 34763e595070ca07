"""The working folder of the planning tests."""

from pathlib import Path

import pytest
from small_project import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds the small project."""
    monkeypatch.chdir(tmp_path)
    write_project()
