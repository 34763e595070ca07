"""Labels as names of folders."""

import hashlib

# Linux's limit is 255 bytes for a name.
_MOST_BYTES = 200


class Names:
    """Names of one folder, each taken once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, label: str) -> str:
        """A name for a label; one that differs from all that were taken before."""
        name = wanted = file_name(label)
        number = 1
        while name in self._taken:
            number += 1
            name = f"{wanted} ({number})"
        self._taken.add(name)
        return name


def file_name(label: str) -> str:
    """A label as the name of a folder: no slash, nothing that cannot be printed, not hidden, not too long."""
    name = "".join(letter if letter.isprintable() else " " for letter in label.replace("/", "-"))
    name = " ".join(name.split()).lstrip(".") or "unnamed"
    if len(name.encode()) > _MOST_BYTES:
        short = name.encode()[: _MOST_BYTES - 10].decode(errors="ignore")
        name = f"{short}..{key_of(label)[:8]}"
    return name


def key_of(*values: object) -> str:
    """Twelve letters that tell values from others, by what they look like."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]
