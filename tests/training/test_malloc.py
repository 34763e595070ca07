"""Memory that a training process keeps, in processes of their own: the setting cannot be taken back."""

import subprocess
import sys

import pytest

CODE = """
import platform, resource, torch
from focal_lab.training.malloc import keep_freed_memory
kept = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(64 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(3):
    faults()
print(kept, platform.libc_ver()[0], faults(), sep=",")
"""


def run(monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[bool, str, int]:
    for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    kept, library, faults = printed.strip().split(",")
    return kept == "True", library, int(faults)


def test_memory_that_was_freed_is_used_again_without_page_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, library, faults = run(monkeypatch)
    if library != "glibc":
        pytest.skip(f"glibc's setting; here is {library or 'another C library'}")
    assert kept
    assert faults < 1000  # 5 x 64 MiB are 81920 pages


def test_the_users_own_setting_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _, _ = run(monkeypatch, MALLOC_TRIM_THRESHOLD_="65536")
    assert not kept
