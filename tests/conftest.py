"""Fixtures for everything that reads or writes a folder of runs; report_world.py fills one."""

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `runs` in the working folder, as on the command line: messages hold no random paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return Path("runs")
