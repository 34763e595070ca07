"""Names of classes: files of them, such as ImageNet's n01440764: tench, and how two lists differ."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import read_text

# Lists up to this length are shown whole; of longer ones, the differences.
_SHOWN = 20
_NAMED = 5


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    listed = ", ".join(names[:_NAMED])
    return f"{listed} and {len(names) - _NAMED} more" if len(names) > _NAMED else listed


def differing(here: Sequence[str], there: Sequence[str], where: tuple[str, str] = ("here", "there")) -> str:
    """Both lists of classes, for a message; "" if they are the same in the same order."""
    if list(here) == list(there):
        return ""
    if max(len(here), len(there)) > _SHOWN:
        pairs = [(ours, theirs) for ours, theirs in zip_longest(here, there) if ours != theirs]
        here, there = ([name for name in names if name][:_SHOWN] for names in zip(*pairs, strict=True))
    plain = [[" ".join(name.split()).casefold() for name in names] for names in (here, there)]
    hint = ", which differ only in case or spaces" if plain[0] == plain[1] else ""
    return f"{', '.join(map(repr, here))} {where[0]} and {', '.join(map(repr, there))} {where[1]}{hint}"


def read_class_names(path: Path, folders: Sequence[str]) -> list[str]:
    """The name of each class; to equal names, such as ImageNet's two cranes, their folders are added.

    Args:
        path: JSON of {"folder": "name"} or of a list in the order of the classes, or text with a line
            `folder name` for each, as ImageNet's LOC_synset_mapping.txt.
        folders: of the classes, in their order.

    Raises:
        UserError: the file is missing or damaged, or lacks a class.
    """

    def refused(reason: str) -> UserError:
        return UserError(reason, file=path, key="data.init_args.names")

    try:
        text = read_text(path)
        named = json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else _lines(text)
    except OSError as error:
        raise refused(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise refused(f"is not valid ({error})") from error
    if isinstance(named, list):
        if len(named) != len(folders):
            raise refused(f"has {len(named)} names for {len(folders)} classes: {some(folders)}")
        named = dict(zip(folders, named, strict=True))
    if not isinstance(named, dict):
        raise refused(f'is not a mapping of folders to names ({{"{folders[0]}": "name", ...}})')
    lacking = [folder for folder in folders if folder not in named]
    if lacking:
        raise refused(f"lacks the class {lacking[0]} ({len(lacking)} in all)")
    wrong = [folder for folder in folders if not isinstance(named[folder], str) or not named[folder].strip()]
    if wrong:
        raise refused(f"names the class {wrong[0]} {named[wrong[0]]!r}, which is not text")
    names = [named[folder].strip() for folder in folders]
    often = Counter(names)
    return [
        f"{name} ({folder})" if often[name] > 1 else name for name, folder in zip(names, folders, strict=True)
    ]


def _lines(text: str) -> dict[str, str]:
    """The first word of each line, and the rest."""
    split = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if any(len(words) < 2 for words in split):
        raise ValueError("a line has one word only; it needs a folder and a name")
    return _once([(folder, name.strip()) for folder, name in split])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; Python alone takes the last of equal keys."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} occurs twice")
    return dict(pairs)
