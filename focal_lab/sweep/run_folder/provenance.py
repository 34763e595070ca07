"""Where a result comes from: commits of our code and of the user's, versions of packages, hardware."""

import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import focal_lab
from focal_lab.sweep.identity.user_code import UserCode

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "optuna", "numpy")


def git_of(modules: Iterable[str]) -> dict[str, Any]:
    """`commit` and `dirty` of our checkout, None outside one; `user_code` has those of the user's
    repositories.

    Args:
        modules: names of the user's own modules.
    """
    files = tuple(sorted({file.resolve() for file in UserCode().files(modules)}))
    return _our_state() | ({"user_code": _repositories(files)} if files else {})


@cache
def _our_state() -> dict[str, Any]:
    commit, dirty = _state(Path(focal_lab.__file__).resolve().parent)
    return {"commit": commit, "dirty": dirty}


@cache
def _repositories(files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Name, commit, and whether something is not committed; outside repositories only the folder's name."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        top = _git(file.parent, "rev-parse", "--show-toplevel")
        folders.setdefault(Path(top) if top else file.parent, []).append(file)
    found = []
    for folder, ours in folders.items():
        commit, changed = _state(folder)
        tracked = _git(folder, "ls-files", "--", *map(str, ours))
        dirty = changed or len((tracked or "").splitlines()) < len(ours)
        found.append({"folder": folder.name, "commit": commit, "dirty": dirty if commit else None})
    return found


def _state(folder: Path) -> tuple[str | None, bool | None]:
    commit = _git(folder, "rev-parse", "HEAD") or None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None or not commit else bool(changes)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    found = {"python": platform.python_version(), "focal_lab": focal_lab.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> str:
    """GPUs that torch sees, and the CPU with its cores: `2 x AMD EPYC`, `8 x H100, 64 x Xeon`."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    gpus = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return ", ".join([*gpus, f"{torch.multiprocessing.cpu_count()} x {_cpu()}"])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
