"""Lists the image files in folders, and counts skipped files.

Standard library only: processes that read archives import this.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from focal_lab.errors import UserError

# torchvision's; importing it would take seconds
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# what systems and tools put beside images, besides names with a leading dot
_JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
# labels and notes, which are not reported
_NOTES = {".cls", ".csv", ".json", ".md", ".txt", ".xml", ".yaml"}
JUNK, OUTSIDE, EMPTY = "hidden or system files", "images outside the class folders", "folders without images"


def is_image(name: str) -> bool:
    """Whether a file has the suffix of an image format that is read."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden or the system's own, by its last name."""
    return name.startswith(".") or name.lower() in _JUNK


class LeftOut:
    """Skipped files among the images: counted by kind, with the first of each."""

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """Count one more of a kind, or several."""
        before, first = self.kinds.get(kind, (0, name))
        self.kinds[kind] = before + count, first

    def add_file(self, name: str) -> None:
        """Count a file that is not an image, unless it holds labels or notes."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in _NOTES:
            self.add(f"{suffix} files" if suffix else "files without a suffix", name)

    def take(self, other: "LeftOut", below: str) -> None:
        """Add everything that was left out in the folder `below`."""
        for kind, (count, first) in other.kinds.items():
            self.add(kind, f"{below}/{first}", count)

    def __str__(self) -> str:
        """For example "3 .heic files (cat/0.heic, ...)"."""
        return ", ".join(
            f"{count} {kind} ({first}{', ...' if count > 1 else ''})"
            for kind, (count, first) in sorted(self.kinds.items())
        )

    def warn(self, where: Path) -> None:
        """One warning that names everything, if there is anything."""
        if self.kinds:
            warnings.warn(f"{where}: not read: {self}", stacklevel=2)


def list_images(folder: Path, option: str) -> list[Path]:
    """The images directly in a folder that an option of the data module names, sorted by name.

    Raises UserError if the folder is missing or has no image in it.
    """
    key = f"data.init_args.{option}"
    if not folder.is_dir():
        raise UserError("is not a folder", file=folder, key=key)
    left, files = LeftOut(), []
    for name, is_folder in _entries(folder, left):
        if is_folder:
            left.add("folders", name)
        elif is_image(name):
            files.append(folder / name)
        else:
            left.add_file(name)
    if not files:
        raise UserError(no_images(left), file=folder, key=key)
    left.warn(folder)
    return files


def no_images(left: LeftOut) -> str:
    """The message for a folder without images: which suffixes are looked for, and what was found."""
    return f"has no images ({', '.join(IMAGES)})" + (f"; found {left}" if left.kinds else "")


def images_below(folder: Path, left: LeftOut) -> list[str]:
    """Relative paths of all images in a folder and its subfolders, in torchvision's order.

    Raises UserError if a folder cannot be listed.
    """
    found: list[tuple[str, str]] = []
    for below, name in _walk(folder, left):
        if is_image(name):
            found.append((below, name))
        else:
            left.add_file(f"{below}{name}")
    # torchvision sorts folders by their paths, without the slash at the end
    return [below + name for below, name in sorted(found, key=lambda place: (place[0][:-1], place[1]))]


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or its subfolders; stops at the first."""
    return any(is_image(name) for _, name in _walk(folder, LeftOut()))


def _identity(folder: Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _walk(
    folder: Path, left: LeftOut, below: str = "", above: frozenset[tuple[int, int]] | None = None
) -> Iterator[tuple[str, str]]:
    """The folder of each file, "" or with a slash at its end, and the file's name; links are followed."""
    if above is None:
        above = frozenset(map(_identity, folder.absolute().parents))
    here = _identity(folder / below)
    if here in above:
        left.add("links to a folder above them", below)
        return
    folders = []
    for name, is_folder in _entries(folder / below, left, below):
        if is_folder:
            folders.append(name)
        else:
            yield below, name
    for name in folders:
        yield from _walk(folder, left, f"{below}{name}/", above | {here})


def _entries(folder: Path, left: LeftOut, below: str = "") -> list[tuple[str, bool]]:
    """Names in a folder, sorted, each with whether it is a folder; junk is counted."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    left.add(JUNK, below + entry.name)
                elif entry.is_dir() or entry.is_file():
                    found.append((entry.name, entry.is_dir()))
                else:
                    left.add("broken links or devices", below + entry.name)
    except OSError as error:
        raise UserError(f"cannot be listed ({error.strerror})", file=folder) from error
    return sorted(found)
