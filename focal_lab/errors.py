"""The one exception that means "your input, not our code": the command line prints it in one line."""

from pathlib import Path


class UserError(ValueError):
    """A mistake in a file or an option, said as `file: dotted.key: value breaks this rule (way out)`.

    `focal-lab` prints the message without a traceback and exits with status 2.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, key: str | None = None) -> None:
        if message.startswith("Caught "):
            # a DataLoader raises the error of its process anew, with the traceback's text as the message
            message = message.rpartition("UserError: ")[2].strip()
        where = [str(part) for part in (file, key) if part]
        super().__init__(": ".join([*where, message]))
        self.message = message
        self.file = file
        self.key = key


def one_of(names: object) -> str:
    """`a, b or c`: what a message offers instead of the value it refuses."""
    words = [str(name) for name in names]  # type: ignore[attr-defined]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "nothing"
