"""Fixtures for what reads or writes a folder of runs, which report_world.py fills; and what is slow."""

from pathlib import Path

import pytest

# Modules, or tests in them, that are slow by nature: `make test-slow` runs them, `make test` does not.
SLOW = (
    "ablation/test_bad_input.py::TestOfARealDatabase",
    "ablation/test_chains.py",  # sweeps that train
    "ablation/test_deaths.py",
    "ablation/test_search.py::test_a_dashboard_of_optuna",
    "ablation/test_search.py::test_a_search_is_trained",
    "ablation/test_search.py::test_successive_halving",
    "ablation/test_sweep_end_to_end.py",
    "backbones/test_graphs.py",  # torch.compile, torch.export, ONNX
    "report/test_dashboard_server.py",  # TensorBoard's server
    "report/test_page_browser.py",
    "tasks/test_device_commands.py",  # commands that start processes of their own
    "tasks/test_many_devices.py",
    "tasks/test_processes.py",
    "tasks/test_requeue.py",
    "tasks/test_sharding.py",
    "tasks/test_two_processes_evaluate.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        if any(f"tests/{name}" in item.nodeid for name in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `runs` in the working folder, as on the command line: messages hold no random paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return Path("runs")
