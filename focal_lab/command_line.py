"""The parser of every subcommand: no abbreviations, and mistakes in one line. Standard library only."""

import argparse
import codecs
import difflib
import io
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from focal_lab.errors import UserError, one_of

# What stands between a user's name and the last @, which passwords may hold, too; user names as well
# (user@server), and people forget a colon or a slash of `://`.
_BEFORE_HOST = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):.*@", re.DOTALL)
# No @ at all: what should be a port and is none.
_NO_PORT = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):(?!\*\*\*@)(?!\d+(?:[/?,\s'\"]|$))[^\s'\"]+")
_NAMED = re.compile(r"(pass\w*\s*=)(?:\s*'[^']*'|[^&'\"]+)", re.IGNORECASE)
# for outputs that do not know all characters, such as a pipe under LC_ALL=C
_ASCII = {"±": "+-", "–": "-", "─": "-", "━": "-", "…": "...", "×": "x", "→": "->"}  # noqa: RUF001
_OPTION = re.compile(r"--?[^\W\d]")


def without_password(text: str) -> str:
    """A text with the passwords of addresses in it replaced by `***`."""
    text = _BEFORE_HOST.sub(r"\1:***@", text)
    text = _NO_PORT.sub(r"\1:***", text)
    return _NAMED.sub(r"\1***", text)


def command(*words: object) -> str:
    """A command of ours as it is typed: quoted where a shell needs that, and without passwords."""
    return shlex.join(["focal-lab", *(without_password(str(word)) for word in words)])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean --seeds?)`, or nothing if no known word is near.

    Words with dots, such as --trainer.max_epoch, are compared with those of the same group only.
    """
    group, dot, _ = word.rpartition(".")
    words = sorted({name for name in known if name.rpartition(".")[0] == group})
    if dot and not words:
        return did_you_mean(word.partition(".")[0], {name.partition(".")[0] for name in known})
    plain = {_plain(name[len(group) :]): name for name in words}
    asked = _plain(word[len(group) :])
    near = [name for key, name in plain.items() if key.startswith(asked)]
    if not 0 < len(near) < 4:
        near = [plain[key] for key in difflib.get_close_matches(asked, plain, n=1, cutoff=0.7)]
    return f" (did you mean {one_of(near)}?)" if near else ""


def _plain(name: str) -> str:
    return name.lstrip("-.").replace("_", "-").lower()


def take_every_character() -> None:
    """Whatever encoding standard output has, a character that it lacks is replaced and stops nobody."""
    codecs.register_error("focal-lab", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="focal-lab")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in _ASCII:
        return _ASCII[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


class CommandParser(argparse.ArgumentParser):
    """An argparse parser that takes no abbreviation, no empty value and no option twice.

    Its mistakes are UserErrors, without the password of an address that stands where none belongs.

    Args:
        others: options that are not ours are somebody else's, who looks at them next.
    """

    def __init__(self, *, others: bool = False, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self._others = others

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Look at the names of options first: whatever else is wrong may follow from one of them.

        Raises:
            UserError: an option is unknown or stands twice.
        """
        words = list(sys.argv[1:] if args is None else args)
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
                    self.error(f"{name}: stands twice; give it once")
                seen[action] = name
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong as a UserError."""
        raise UserError(without_password(re.sub(r"^argument (-[\w-]+|[A-Z]+): ", r"\1: ", message)))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string.strip():
            raise argparse.ArgumentError(action, "is empty")
        return super()._get_value(action, arg_string)


def add_out(parser: argparse.ArgumentParser) -> None:
    """`--out`, which most subcommands have."""
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
