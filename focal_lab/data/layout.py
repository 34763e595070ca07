"""What lies under the root of a classification data set, and which of it belongs to which split."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from focal_lab.data.sources import FileSource, Source
from focal_lab.errors import UserError

# How splits are called; the first is ours, the others are Hugging Face's and common ones.
CALLED = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
_ROOT = "data.init_args.root"
_SHOWN = 6


@dataclass(frozen=True)
class Found(ABC):
    """The pictures of a split, before it is known which label each class has.

    Attributes:
        where: what to call it in a message.
        classes: names of the classes that are there, in their order.
    """

    where: Path
    classes: Sequence[str]

    @abstractmethod
    def source(self, classes: Sequence[str]) -> Source:
        """The pictures, with labels that count along `classes`.

        Raises:
            UserError: there are none.
        """


@dataclass(frozen=True)
class ClassFolders(Found):
    """One folder per class, with pictures in it or in folders of it."""

    def source(self, classes: Sequence[str]) -> FileSource:
        """The pictures, in the order of torchvision's `ImageFolder`.

        Raises:
            UserError: there are none.
        """
        labels = {name: label for label, name in enumerate(classes)}
        samples: list[tuple[str, int]] = make_dataset(
            str(self.where), labels, extensions=IMG_EXTENSIONS, allow_empty=True
        )
        if not samples:
            raise UserError(
                f"has no pictures in its class folders ({', '.join(IMG_EXTENSIONS)})",
                file=self.where,
                key=_ROOT,
            )
        prefix = len(str(self.where)) + 1
        return FileSource(self.where, [file[prefix:] for file, _ in samples], [label for _, label in samples])


def find_split(root: Path, split: str) -> Found | None:
    """The pictures of a split; None where there is no sign of any.

    Args:
        root: the data set's folder.
        split: train, val or test.

    Raises:
        UserError: there is a folder for the split, and nothing that we read in it.
    """
    for name in CALLED[split]:
        if (root / name).is_dir():
            return _in_folder(root / name)
    return None


def missing(root: Path, split: str) -> UserError:
    """What to tell where a split is not there: what was expected, and what was found."""
    if not root.is_dir():
        return UserError("is a file" if root.exists() else "is no folder", file=root, key=_ROOT)
    there = sorted(root.iterdir(), key=lambda path: path.name)
    found = listing(there) + _hint(there, split)
    return UserError(
        f"has no pictures for {split}: expected {expected(split)}; found {found}",
        file=root,
        key=_ROOT,
    )


def expected(split: str) -> str:
    """What may hold the pictures of a split."""
    name = CALLED[split][-1 if split != "val" else 0]
    return f"{name}/CLASS/*.jpg"


def listing(entries: Sequence[Path]) -> str:
    """The first names of a folder, and how many there are."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in entries]
    if not names:
        return "nothing"
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _hint(entries: Sequence[Path], split: str) -> str:
    """What may have happened."""
    if split == "train" and any(path.is_dir() and _has_pictures(path) for path in entries):
        return " (put the class folders into a folder train/)"
    inner = [path for path in entries if path.is_dir() and (path / CALLED[split][0]).is_dir()]
    return f" (use root {inner[0]})" if inner else ""


def _in_folder(folder: Path) -> Found:
    entries = sorted(folder.iterdir(), key=lambda path: path.name)
    folders = [path.name for path in entries if path.is_dir() and not path.name.startswith(".")]
    if folders:
        return ClassFolders(folder, folders)
    raise UserError(
        f"has no class folders: expected {folder}/CLASS/*.jpg; found {listing(entries)}",
        file=folder,
        key=_ROOT,
    )


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMG_EXTENSIONS for path in folder.iterdir())


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
