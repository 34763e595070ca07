"""Rules of data modules' options."""

from collections.abc import Mapping
from typing import Any

from focal_lab.errors import UserError


def check(option: str, value: Any, kept: bool, rule: str) -> None:
    """Refuse the value of an option.

    Args:
        option: its name.
        value: what it was set to.
        kept: whether the value keeps the rule.
        rule: what to use instead.

    Raises:
        UserError: it does not.
    """
    if not kept:
        raise UserError(f"{value} is out of range ({rule})", key=f"data.init_args.{option}")


def check_least(options: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Refuse numbers that are too small; None is no number.

    Raises:
        UserError: one of them is.
    """
    for option, number in least.items():
        value = options[option]
        check(option, value, value is None or value >= number, f"use {number} or more")
