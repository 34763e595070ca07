"""Checks of data modules' options: ranges, and whether the files that they name exist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

ROOT_KEY = "data.init_args.root"


def check(option: str, value: Any, valid: bool, rule: str) -> None:
    """Raise UserError for an option's value unless it is valid; `rule` says what to use instead."""
    if not valid:
        raise UserError(f"{value} is out of range ({rule})", key=f"data.init_args.{option}")


def check_least(options: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Raise UserError for an option below its least value; None is allowed."""
    for option, number in least.items():
        value = options[option]
        check(option, value, value is None or value >= number, f"use {number} or more")


def check_seeds(options: Mapping[str, Any], *names: str) -> None:
    """Raise UserError for a seed that is negative or too large; None, and no such option, is allowed."""
    for name in names:
        seed = options.get(name)
        check(name, seed, seed is None or 0 <= seed < 2**32, "use 0 to 2^32 - 1")


def check_place(option: str, root: Path, place: str, kind: str) -> None:
    """Raise UserError unless what an option names, relative to root, is a "folder" or "file"; opens nothing.

    A data module that reads files calls this in its method `check_files`, which plans and `fit` call.
    """
    path, key = root / place, f"data.init_args.{option}"
    if path.is_dir() if kind == "folder" else path.is_file():
        return
    if not root.is_dir() and not Path(place).is_absolute():
        path, kind, key = root, "folder", ROOT_KEY
    raise UserError(f"is not a {kind}" if path.exists() else "does not exist", file=path, key=key)


def checks_files(kind: type) -> bool:
    """Whether `check_files` of a data module can be trusted.

    A user's class that inherits it from ours may find its files in its own way.
    """
    ours = kind.__module__.partition(".")[0] == "focal_lab"
    return "check_files" in vars(kind) or (ours and hasattr(kind, "check_files"))
