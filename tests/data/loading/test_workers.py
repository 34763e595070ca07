import os

import pytest
import torch
from lightning import Trainer

from focal_lab.data.loading import workers
from focal_lab.data.loading.workers import cgroup_quota, choose_workers, usable_cores


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_is_read_in_both_versions_of_control_groups(tmp_path, files, quota):
    assert cgroup_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("50000", 1), ("6400000", 8), ("max", 8)])
def test_cores_are_those_of_affinity_and_quota(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(workers, "_CGROUPS", write(tmp_path, {"cpu.max": f"{quota} 100000"}))

    assert usable_cores() == cores


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, of which torch takes so many threads."""

    def made(cores, threads, omp=None):
        monkeypatch.setattr(workers, "usable_cores", lambda: cores)
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
