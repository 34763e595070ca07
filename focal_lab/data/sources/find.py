"""Finds the images of each split under the root of a classification data set."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focal_lab.data.classification.class_names import some
from focal_lab.data.loading.list_files import (
    EMPTY,
    JUNK,
    OUTSIDE,
    LeftOut,
    has_images,
    images_below,
    is_image,
    is_junk,
    no_images,
)
from focal_lab.data.option_checks import ROOT_KEY
from focal_lab.data.sources.archive_index import SUFFIXES
from focal_lab.data.sources.archives import open_archives
from focal_lab.data.sources.image_source import SPLIT_NAMES, FileSource, SplitImages
from focal_lab.data.sources.parquet import Columns, open_tables
from focal_lab.errors import UserError

_COMPRESSED = re.compile(r".*\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zstd?|lz4|lzma|lz|z))", re.IGNORECASE)


@dataclass(frozen=True)
class ClassFolders(SplitImages):
    """One folder per class, with images in it or in its subfolders."""

    def source(self, classes: Sequence[str]) -> FileSource:
        """The images in the order of torchvision's `ImageFolder`; one warning names what is left out.

        Raises UserError if a folder cannot be listed.
        """
        files: list[str] = []
        labels: list[int] = []
        left = LeftOut()
        for path in _entries(self.where, left):
            if path.name in self.classes:
                below = LeftOut()
                found = images_below(path, below)
                files += [f"{path.name}/{file}" for file in found]
                labels += [classes.index(path.name)] * len(found)
                left.take(below, path.name)
            elif path.is_dir():
                left.add(EMPTY, path.name)
            elif is_image(path.name):
                left.add(OUTSIDE, path.name)
            else:
                left.add_file(path.name)
        left.warn(self.where)
        return FileSource(self.where, files, labels)


def find_split(root: Path, split: str, columns: Columns) -> SplitImages | None:
    """The images of a split in the data set's folder or single archive; None if there is no sign of any.

    Raises UserError if a folder or file of the split's name holds nothing that can be read.
    """
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        return open_archives([root], root, inside=SPLIT_NAMES[split])
    folders = [root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()]
    if folders:
        if len(folders) > 1:
            warnings.warn(f"{root}: {folders[0].name}/ is read, and {folders[1].name}/ is not", stacklevel=2)
        return _in_folder(folders[0], columns)
    for folder, files in _files_of(root, split):
        found = _of_files(files, folder if len(files) > 1 else (files or [folder])[0], columns)
        if found is not None:
            return found
    return None


def check_training(root: Path) -> None:
    """Check that something has the name of training images; nothing is opened.

    Raises UserError if nothing has.
    """
    archive = root.is_file() and root.suffix.lower() in SUFFIXES
    folder = any((root / name).is_dir() for name in SPLIT_NAMES["train"])
    if not (archive or folder or any(files for _, files in _files_of(root, "train"))):
        raise missing(root, "train")


def missing(root: Path, split: str) -> UserError:
    """The error for a split that does not exist: what was expected, and what was found."""
    if not root.is_dir():
        if _COMPRESSED.fullmatch(root.name) and root.exists():
            return _compressed(root)
        kind = f"has no folder {split}/ in it" if root.suffix.lower() in SUFFIXES else "is a file"
        return UserError(kind if root.exists() else "is not a folder", file=root, key=ROOT_KEY)
    entries = _entries(root)
    return UserError(
        f"has no images for {split}: expected {split}/CLASS/*.jpg, {split}.tar or .zip, {split}-*.tar, or "
        f"{split}-*.parquet; found {_listing(entries)}{_hint(entries, split)}",
        file=root,
        key=ROOT_KEY,
    )


def _files_of(root: Path, split: str) -> list[tuple[Path, list[Path]]]:
    """The files in root and in its folder data whose names tell the split, as imagenet-train-00012.tar."""
    return [
        (folder, [path for path in _entries(folder) if path.is_file() and _split_of(path) == split])
        for folder in (root, root / "data")
    ]


def _split_of(path: Path) -> str | None:
    """The split in a file's name; None for none, or several."""
    words = set(re.split(r"[-_.]", path.name.lower()))
    found = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def _listing(entries: Sequence[Path]) -> str:
    return some([f"{path.name}/" if path.is_dir() else path.name for path in entries]) or "nothing"


def _entries(folder: Path, left: LeftOut | None = None) -> list[Path]:
    """What is in a folder, by name, except junk."""
    if not folder.is_dir():
        return []
    try:
        found = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise UserError(f"cannot be listed ({error.strerror})", file=folder, key=ROOT_KEY) from error
    for path in found:
        if left is not None and is_junk(path.name):
            left.add(JUNK, path.name)
    return [path for path in found if not is_junk(path.name)]


def _of_files(files: Sequence[Path], where: Path, columns: Columns) -> SplitImages | None:
    """Archives or tables; None for neither."""
    compressed = [path for path in files if _COMPRESSED.fullmatch(path.name)]
    if compressed:
        raise _compressed(compressed[0])
    archives = [path for path in files if path.suffix.lower() in SUFFIXES]
    tables = [path for path in files if path.suffix.lower() == ".parquet"]
    if not archives and not tables:
        return None
    left = LeftOut()
    for path in files:
        if path not in (archives or tables):
            left.add_file(path.name)
    left.warn(where)
    return open_archives(archives, where) if archives else open_tables(tables, where, columns)


def _compressed(path: Path) -> UserError:
    return UserError(
        "is compressed as a whole, so that no image can be read without those before it (decompress it to a "
        "plain .tar; the images are compressed themselves)",
        file=path,
        key=ROOT_KEY,
    )


def _hint(entries: Sequence[Path], split: str) -> str:
    """The likely fix."""
    if split == "train" and any(is_image(file.name) for path in entries for file in _entries(path)):
        return " (put the class folders into a folder train/)"
    inner = [path for path in entries if path.is_dir() and (path / SPLIT_NAMES[split][0]).is_dir()]
    return f" (use root {inner[0]})" if inner else ""


def _in_folder(folder: Path, columns: Columns) -> SplitImages:
    entries = _entries(folder)
    folders = [path for path in entries if path.is_dir()]
    classes = [path.name for path in folders if has_images(path)]
    if classes:
        return ClassFolders(where=folder, classes=classes)
    found = _of_files([path for path in entries if path.is_file()], folder, columns)
    if found is not None:
        return found
    if folders:
        left = LeftOut()
        for path in folders:
            images_below(path, left)
        raise UserError(f"its class folders: {no_images(left)}", file=folder, key=ROOT_KEY)
    raise UserError(
        f"has no class folders, archives or tables: expected {folder}/CLASS/*.jpg, *.tar, *.zip or "
        f"*.parquet; found {_listing(entries)}",
        file=folder,
        key=ROOT_KEY,
    )
