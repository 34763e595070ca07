"""What a result must say about where it comes from: code, the user's own too, versions, hardware."""

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


@cache
def git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from, and whether it was changed; both None outside one."""
    folder = Path(focal_lab.__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if changes is None or not commit else bool(changes)}


def git_of(modules: Iterable[str]) -> dict[str, Any]:
    """`git_state`, and under `user_code` that of each repository that some modules of the user's are in."""
    files = tuple(sorted({file.resolve() for file in UserCode().files(modules)}))
    return git_state() | ({"user_code": _repositories(files)} if files else {})


@cache
def _repositories(files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Name, commit and whether something is not committed; of files in no repository the folder's name."""
    places: dict[Path, list[Path]] = {}
    for file in files:
        top = _git(file.parent, "rev-parse", "--show-toplevel")
        places.setdefault(Path(top) if top else file.parent, []).append(file)
    found = []
    for folder, ours in places.items():
        commit = _git(folder, "rev-parse", "HEAD") or None
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        known = _git(folder, "ls-files", "--", *map(str, ours))
        dirty = bool(changes) or len((known or "").splitlines()) < len(ours)
        found.append({"folder": folder.name, "commit": commit, "dirty": dirty if commit else None})
    return found


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
    """The processor, its cores, and the GPUs that torch sees: `2 x AMD EPYC`, `8 x H100, 64 x Xeon`."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    gpus = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return ", ".join([*gpus, f"{torch.multiprocessing.cpu_count()} x {_processor()}"])


def _processor() -> str:
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
