import joblib
import pytest
import torch
from lightning import Trainer

from focal_lab.data.loading.loader import choose_workers


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, of which torch takes so many threads."""

    def made(cores, threads, omp=None):
        monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if omp is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", str(omp))

    return made


@pytest.mark.parametrize(
    ("cores", "threads", "chosen"), [(1, 1, 0), (2, 2, 0), (4, 4, 1), (64, 64, 1), (64, 1, 0)]
)
def test_where_the_cores_train_one_process_prepares_and_none_on_few_cores(machine, cores, threads, chosen):
    machine(cores, threads)

    assert choose_workers(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)) == chosen


class OnGpus:
    """What is asked of a trainer."""

    def __init__(self, devices):
        self.num_devices = devices
        self.strategy = type("Strategy", (), {"root_device": torch.device("cuda", 0)})()


@pytest.mark.parametrize(
    ("cores", "threads", "omp", "devices", "chosen"),
    [
        (12, 12, None, 1, 12),
        (96, 48, None, 8, 12),  # eight processes on one machine
        (96, 96, None, 1, 16),  # more would hold memory and no batch
        (16, 4, None, 1, 4),  # a sweep trains four runs at once, and has given each its share
        (16, 1, 1, 1, 16),  # a launcher's 1 is no share of the machine
        (4, 4, None, 8, 1),
    ],
)
def test_on_gpus_the_share_of_the_cores_prepares(machine, cores, threads, omp, devices, chosen):
    machine(cores, threads, omp)

    assert choose_workers(OnGpus(devices)) == chosen
