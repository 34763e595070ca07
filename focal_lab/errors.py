"""The exception for a user's mistakes, and phrases for its messages."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """A mistake in a file or an option, as `file: dotted.key: value breaks this rule (way out)`.

    `focal-lab` prints the message without a traceback and exits with status 2.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, key: str | None = None) -> None:
        if message.startswith("Caught "):
            # a DataLoader re-raises its worker's error with the traceback's text as the message
            message = message.rpartition("UserError: ")[2].strip()
        where = [str(part) for part in (file, key) if part]
        super().__init__(": ".join([*where, message]))
        self.message = message
        self.file = file
        self.key = key


def one_of(names: Iterable[object]) -> str:
    """`a, b or c`: what a message offers instead of the value it refuses."""
    words = [str(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "nothing"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean --seeds?)`, or nothing if no known word is similar.

    Words with dots, such as --trainer.max_epoch, are compared with those of the same group only.
    """
    known = set(known)
    group, dot, _ = word.rpartition(".")
    words = sorted(name for name in known if name.rpartition(".")[0] == group)
    if dot and not words:
        return did_you_mean(word.partition(".")[0], {name.partition(".")[0] for name in known})
    plain = {_plain(name[len(group) :]): name for name in words}
    wanted = _plain(word[len(group) :])
    near = [name for key, name in plain.items() if key.startswith(wanted)]
    if not 0 < len(near) < 4:
        near = [plain[key] for key in difflib.get_close_matches(wanted, plain, n=1, cutoff=0.7)]
    return f" (did you mean {one_of(near)}?)" if near else ""


def known_names(word: str, known: Iterable[str]) -> str:
    """` (did you mean b?)` if a known word is similar, else ` (use a, b or c)`; nothing if none is known."""
    words = list(dict.fromkeys(map(str, known)))
    return did_you_mean(word, words) or (f" (use {one_of(words)})" if words else "")


def _plain(name: str) -> str:
    return name.lstrip("-.").replace("_", "-").lower()
