"""What lies under the root of a classification data set, and which of it belongs to which split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from focal_lab.data.archive_index import SUFFIXES
from focal_lab.data.archives import open_archives
from focal_lab.data.found import CALLED, ROOT_KEY, Found
from focal_lab.data.parquet import Columns, open_tables
from focal_lab.data.sources import FileSource
from focal_lab.errors import UserError

_SHOWN = 6
_COMPRESSED = re.compile(r".*\.(tgz|tbz2?|txz|tar\.\w+)", re.IGNORECASE)


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
                key=ROOT_KEY,
            )
        prefix = len(str(self.where)) + 1
        return FileSource(self.where, [file[prefix:] for file, _ in samples], [label for _, label in samples])


def find_split(root: Path, split: str, columns: Columns = Columns()) -> Found | None:  # noqa: B008
    """The pictures of a split; None where there is no sign of any.

    Args:
        root: the data set's folder, or one archive of it all.
        split: train, val or test.
        columns: of Parquet files.

    Raises:
        UserError: what is called as the split is nothing that we read.
    """
    if root.is_file() and root.suffix in SUFFIXES:
        return open_archives([root], root, inside=CALLED[split])
    for name in CALLED[split]:
        if (root / name).is_dir():
            return _in_folder(root / name, columns)
    for folder in (root, root / "data"):
        named = [path for path in _entries(folder) if path.is_file() and _split_of(path) == split]
        found = _of_files(named, folder if len(named) > 1 else (named or [folder])[0], columns)
        if found is not None:
            return found
    return None


def missing(root: Path, split: str) -> UserError:
    """What to tell where a split is not there: what was expected, and what was found."""
    if not root.is_dir():
        told = f"has no folder {split}/ in it" if root.suffix in SUFFIXES else "is a file"
        return UserError(told if root.exists() else "is no folder", file=root, key=ROOT_KEY)
    there = _entries(root)
    found = listing(there) + _hint(there, split)
    return UserError(
        f"has no pictures for {split}: expected {split}/CLASS/*.jpg, {split}.tar or .zip, {split}-*.tar, or "
        f"{split}-*.parquet; found {found}",
        file=root,
        key=ROOT_KEY,
    )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.name) if folder.is_dir() else []


def _split_of(path: Path) -> str | None:
    """The split that a file's name tells, such as imagenet-train-00012.tar; None for none, or several."""
    words = set(re.split(r"[-_.]", path.name.lower()))
    told = [split for split, names in CALLED.items() if words & set(names)]
    return told[0] if len(told) == 1 else None


def _of_files(files: Sequence[Path], where: Path, columns: Columns) -> Found | None:
    """Archives or tables; None for neither."""
    archives = [path for path in files if path.suffix in SUFFIXES]
    if archives:
        return open_archives(archives, where)
    tables = [path for path in files if path.suffix == ".parquet"]
    if tables:
        return open_tables(tables, where, columns)
    compressed = [path for path in files if _COMPRESSED.fullmatch(path.name)]
    if compressed:
        raise UserError(
            "is compressed as a whole, so that no picture can be read without those before it (decompress it "
            "to a plain .tar; the pictures are compressed themselves)",
            file=compressed[0],
            key=ROOT_KEY,
        )
    return None


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


def _in_folder(folder: Path, columns: Columns) -> Found:
    entries = _entries(folder)
    folders = [path.name for path in entries if path.is_dir() and not path.name.startswith(".")]
    if folders:
        return ClassFolders(folder, folders)
    found = _of_files([path for path in entries if path.is_file()], folder, columns)
    if found is not None:
        return found
    raise UserError(
        f"has no class folders, archives or tables: expected {folder}/CLASS/*.jpg, *.tar, *.zip or "
        f"*.parquet; found {listing(entries)}",
        file=folder,
        key=ROOT_KEY,
    )


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMG_EXTENSIONS for path in folder.iterdir())
