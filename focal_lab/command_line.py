"""The parser of every subcommand: no abbreviations, mistakes in one line. Standard library only."""

import argparse
import codecs
import io
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from focal_lab.errors import UserError, did_you_mean

# Text between a user name and the last @ (passwords may contain one), with `:`, `:/` or `://` before it.
_BEFORE_HOST = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):.*@", re.DOTALL)
# Without an @: a port that is not a number.
_NO_PORT = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):(?!\*\*\*@)(?!\d+(?:[/?,\s'\"]|$))[^\s'\"]+")
_NAMED = re.compile(r"(pass\w*\s*=)(?:\s*'[^']*'|[^&'\"]+)", re.IGNORECASE)
# for outputs that lack some characters, such as a pipe under LC_ALL=C
_ASCII = {"±": "+-", "–": "-", "─": "-", "━": "-", "…": "...", "×": "x", "→": "->"}  # noqa: RUF001
_OPTION = re.compile(r"--?[^\W\d]")


def without_password(text: str) -> str:
    """Replace the passwords in database URLs by `***`."""
    text = _BEFORE_HOST.sub(r"\1:***@", text)
    text = _NO_PORT.sub(r"\1:***", text)
    return _NAMED.sub(r"\1***", text)


def command(*words: object) -> str:
    """A `focal-lab` command as one types it: quoted for a shell, without passwords."""
    return shlex.join(["focal-lab", *(without_password(str(word)) for word in words)])


def replace_unknown_characters() -> None:
    """Make standard output and error replace characters that their encoding lacks instead of raising."""
    codecs.register_error("focal-lab", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="focal-lab")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in _ASCII:
        return _ASCII[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


def rename_options(words: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Replace old spellings of options by the current ones, with a note on standard error for each."""
    current = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in renamed:
            print(f"focal-lab: {name} is now called {renamed[name]}", file=sys.stderr)
            word = f"{renamed[name]}{equals}{value}"
        current.append(word)
    return current


class CommandParser(argparse.ArgumentParser):
    """An argparse parser that accepts no abbreviation, no empty value and no repeated option.

    Its errors are UserErrors, in which the passwords of database URLs are masked.

    Args:
        others: unknown options are left to another parser.
        renamed: old spellings of options, which are accepted with a note.
    """

    def __init__(
        self, *, others: bool = False, renamed: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self._others, self._renamed = others, renamed or {}

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Check the names of options first: an unknown one may be the cause of other errors.

        Raises:
            UserError: an option is unknown or repeated.
        """
        words = rename_options(sys.argv[1:] if args is None else args, self._renamed)
        seen: dict[argparse.Action, str] = {}
        for word in takewhile(lambda word: word != "--", words):
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is None:
                if _OPTION.match(name) and not self._others:
                    hint = did_you_mean(name, self._option_string_actions)
                    self.error(f"unrecognized arguments: {name}{equals}{value}{hint}")
            elif isinstance(action, argparse._StoreAction):
                if action in seen:
                    self.error(f"{name}: is given twice; give it once")
                seen[action] = name
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(without_password(re.sub(r"^argument (-[\w-]+|[A-Z]+): ", r"\1: ", message)))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string.strip():
            raise argparse.ArgumentError(action, "is empty")
        return super()._get_value(action, arg_string)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out`, which most subcommands have."""
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`, the choice between a checkpoint's weights and their moving average."""
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="raw: the trained weights (default); ema: their moving average, if the training kept one",
    )


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is an integer with a minimum."""

    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is too few; use {least} or more")
        return int(text)

    return integer
