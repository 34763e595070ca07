"""Checks of values in a sweep file, each raising a UserError with dotted key, value and fix."""

from collections.abc import Mapping, Sequence
from typing import Any

from focal_lab.errors import UserError, known_names
from focal_lab.utils.yaml import plain


def check_keys(raw: Mapping[str, Any], allowed: Sequence[str], what: str, key: str) -> None:
    """Every key is one of those allowed in a `what`, such as a sweep file."""
    for name in raw:
        if name not in allowed:
            raise UserError(f"{name} is not a key of {what}{known_names(name, allowed)}", key=key)


def mapping(value: Any, key: str) -> Mapping[Any, Any]:
    """A mapping; empty for none."""
    if plain(value) is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{plain(value)!r} is not a mapping", key=key)
    return value


def entries(raw: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    """Entries of the list at a key, each with its own dotted key."""
    value = raw.get(name)
    if plain(value) in (None, {}, ""):
        return []
    if not isinstance(value, list):
        raise UserError(f"{plain(value)!r} is not a list", key=name)
    return [(f"{name}.{number}", entry) for number, entry in enumerate(value)]


def choice(value: Any, allowed: Sequence[str], key: str) -> str:
    """One of the allowed words."""
    if value not in allowed:
        raise UserError(f"{value!r} is unknown{known_names(str(value), allowed)}", key=key)
    return str(value)


def switch(value: Any, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is neither true nor false", key=key)
    return value


def whole(value: Any, least: int, what: str, key: str) -> int:
    """An integer; `what` says what it counts. Not isinstance: True is not a number here."""
    if type(value) is not int or value < least:
        raise UserError(f"{value!r} is not a {what}; use {least} or more", key=key)
    return value


def once(names: Sequence[str], key: str) -> tuple[str, ...]:
    """Names that all differ."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is listed twice", key=key)
    return tuple(names)
