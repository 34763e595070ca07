"""Describes classes and converts values of a configuration as LightningCLI does. Imports torch."""

import enum
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import lightning.pytorch.cli  # noqa: F401  (registers the types that Lightning's options have)
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from focal_lab.errors import UserError
from focal_lab.sweep.identity.identity_table import is_ours, normal_options, stable_name, text_keys
from focal_lab.training.union_order import try_int_before_float
from focal_lab.utils.lazy_imports import find_class

# types of options whose values need no conversion if they have that type already
_KINDS: dict[Any, str] = {float: "float", int: "int", bool: "bool", str: "str", type(None): "None"}

Question = tuple[str, str, Any]

try_int_before_float()


def convert_all(
    owners: Iterable[str], questions: Iterable[Question]
) -> tuple[dict[str, dict[str, Any] | None], list[tuple[Any] | None]]:
    """Describe classes, and convert values of their options.

    Args:
        owners: dotted paths of classes.
        questions: (class, option, value).

    Returns:
        Class -> description, None if it cannot be imported; and for each question a tuple of the converted
        value, None if the class does not take it: checking the configuration reports why.
    """
    with warnings.catch_warnings(), _working_directory_last():
        warnings.simplefilter("ignore")
        described = {owner: _describe(owner) for owner in owners}
        answers = [
            None if _describe(owner) is None else _converted(owner, option, value)
            for owner, option, value in questions
        ]
        return described, answers


@contextmanager
def _working_directory_last() -> Iterator[None]:
    """Find the user's modules in the working directory."""
    before, here = list(sys.path), str(Path.cwd())
    sys.path = before if "" in before or here in before else [*before, here]
    try:
        yield
    finally:
        sys.path = before


@cache
def _describe(owner: str) -> dict[str, Any] | None:
    """Stable name of a class, whether it is ours, defaults and types of its options; None for no class.

    The default of a required option is None.
    """
    try:
        cls, parser = find_class(owner), _parser(owner)
    except (Exception, SystemExit):  # it runs the user's code
        return None
    defaults: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for action in parser._actions:
        name = action.dest.removeprefix("it.")
        kind = getattr(action, "_typehint", None)
        if not action.dest.startswith("it.") or name.endswith(".help"):
            continue
        kinds[name] = _kind(kind)
        converted = _converted(owner, name, action.default)
        defaults[name] = _plain(action.default) if converted is None else converted[0]
    bases = [stable_name(base) for base in getattr(cls, "__mro__", (cls,)) if is_ours(base)]
    return {
        "name": stable_name(cls),
        "ours": is_ours(cls),
        "bases": bases,
        "defaults": defaults,
        "kinds": kinds,
    }


def _kind(hint: Any) -> str:
    """`int`, `int|float|None` and so on for unions of float, int, bool, str and None; else empty."""
    parts = get_args(hint) if get_origin(hint) in (Union, type(int | str)) else (hint,)
    names = [_KINDS.get(part, "") for part in parts]
    return "|".join(names) if all(names) else ""


@cache
def _parser(owner: str) -> ArgumentParser:
    """The parser that LightningCLI has for a class."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(find_class(owner), "it", fail_untyped=False, sub_configs=True)
    return parser


def _converted(owner: str, option: str, value: Any) -> tuple[Any] | None:
    try:
        parsed = _parser(owner).parse_object({"it": {option: value}}, defaults=False, _skip_required=True)
        return (_plain(parsed["it"][option]),)
    except (ArgumentError, UserError, KeyError):  # KeyError: `callbacks+`, which appends
        return None


def _plain(value: Any) -> Any:
    """A value for JSON, with stable names for classes and functions, and their options normalised."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            return _plain_class(value)
        return text_keys({key: _plain(part) for key, part in value.items()})
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(part) for part in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or (hasattr(value, "__qualname__") and hasattr(value, "__module__")):
        return stable_name(value)
    text = repr(value)
    return f"{stable_name(type(value))}: {'' if ' at 0x' in text else text}"


def _plain_class(value: Mapping[str, Any]) -> dict[str, Any]:
    path = str(value["class_path"])
    given = {key: _plain(part) for key, part in (value.get("init_args") or {}).items()}
    extra = {"dict_kwargs": _plain(value["dict_kwargs"])} if value.get("dict_kwargs") else {}
    info = _describe(path)
    if info is None:
        return {"class_path": path, "init_args": given, **extra}
    return {"class_path": info["name"], "init_args": normal_options(info, given), **extra}
