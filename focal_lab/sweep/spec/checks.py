"""Checks of values in a sweep file, each raising a UserError with file, dotted key, value and fix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, known_names
from focal_lab.utils.yaml import plain


def check_keys(raw: Mapping[str, Any], allowed: Sequence[str], what: str, path: Path, key: str) -> None:
    """Every key is one of those allowed in a `what`, such as a sweep file."""
    for name in raw:
        if name not in allowed:
            raise UserError(f"{name} is not a key of {what}{known_names(name, allowed)}", file=path, key=key)


def mapping(value: Any, path: Path, key: str) -> Mapping[Any, Any]:
    """A mapping; empty for none."""
    if plain(value) is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{plain(value)!r} is not a mapping", file=path, key=key)
    return value


def entries(raw: Mapping[str, Any], name: str, path: Path) -> list[tuple[str, Any]]:
    """Entries of the list at a key, each with its own dotted key."""
    value = raw.get(name)
    if plain(value) in (None, {}, ""):
        return []
    if not isinstance(value, list):
        raise UserError(f"{plain(value)!r} is not a list", file=path, key=name)
    return [(f"{name}.{number}", entry) for number, entry in enumerate(value)]


def choice(value: Any, allowed: Sequence[str], path: Path | None, key: str) -> str:
    """One of the allowed words."""
    if value not in allowed:
        raise UserError(f"{value!r} is unknown{known_names(str(value), allowed)}", file=path, key=key)
    return str(value)


def switch(value: Any, path: Path, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is neither true nor false", file=path, key=key)
    return value


def whole(value: Any, least: int, what: str, path: Path, key: str) -> int:
    """An integer; `what` says what it counts. Not isinstance: True is not a number here."""
    if type(value) is not int or value < least:
        raise UserError(f"{value!r} is not a {what}; use {least} or more", file=path, key=key)
    return value


def once(names: Sequence[str], path: Path | None, key: str) -> tuple[str, ...]:
    """Names that all differ."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is listed twice", file=path, key=key)
    return tuple(names)
