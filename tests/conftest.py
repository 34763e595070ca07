"""Fixtures for a folder of runs, which support/finished_runs.py fills, and what is slow."""

from pathlib import Path

import pytest

# Modules, or tests in them, that are slow by nature: `make test-slow` runs them, `make test` does not.
SLOW = (
    "sweep/test_bad_input.py::TestOfARealDatabase",
    "sweep/test_chains.py",  # sweeps that train
    "sweep/test_crashes.py",
    "sweep/plan/test_search.py::test_a_dashboard_of_optuna",
    "sweep/plan/test_search.py::test_a_search_is_trained",
    "sweep/plan/test_search.py::test_successive_halving",
    "sweep/test_sweep_end_to_end.py",
    "backbones/attention/test_padded_batch.py::test_a_padded_batch_compiles",
    "backbones/test_graphs.py",  # torch.compile, torch.export, ONNX
    "tools/export/test_export_graph.py",
    "tools/export/test_export_heads.py",
    "sweep/engine/test_queue.py::TestOfSeveralMachines",  # PostgreSQL
    "sweep/engine/test_queue.py::test_four_processes_claim_every_run_once[postgres]",
    "sweep/commands/test_plan_command.py::test_time_and_memory_are_measured_once",  # real measurements
    "tools/profile/test_profile.py::test_a_measurement_has_speed",
    "report/tensorboard/test_dashboard_server.py",  # TensorBoard's server
    "report/html/test_page_browser.py",
    "training/test_device_commands.py",  # commands that start processes of their own
    "training/test_many_devices.py",
    "training/test_processes.py",
    "training/test_slurm_requeue.py",
    "training/test_two_processes_evaluate.py",
    "tasks/detection/test_metrics.py::test_two_processes",
    "tasks/segmentation/test_segmentation_metrics.py::test_two_processes",
    "backbones/test_ecosystem.py::test_two_processes",
    "benchmarks/test_gpu_check.py",
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
