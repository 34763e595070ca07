"""Image files in folders: which files are images, which are junk, and what is left out.

Standard library only: processes that read archives import this.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from focal_lab.errors import UserError

# torchvision's; importing it would take a reading process seconds
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# What systems and tools put beside images; names that begin with a dot are, too.
_JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
# Labels and notes, which nobody takes for images: they are not named.
_NOTES = {".cls", ".csv", ".json", ".md", ".txt", ".xml", ".yaml"}
JUNK, OUTSIDE, EMPTY = "hidden or system files", "images outside the class folders", "folders without images"


def is_image(name: str) -> bool:
    """Whether a file is called as the images that are read."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def is_junk(name: str) -> bool:
    """Whether a file or folder, by its name without those above it, is hidden or the system's own."""
    return name.startswith(".") or name.lower() in _JUNK


class LeftOut:
    """What lies among images and is not read: counted by kind, with the first of each."""

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, name: str) -> None:
        """One more of a kind."""
        count, first = self.kinds.get(kind, (0, name))
        self.kinds[kind] = count + 1, first

    def add_file(self, name: str) -> None:
        """One more file that is not called as an image; labels and notes do not count."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in _NOTES:
            self.add(f"{suffix} files" if suffix else "files without a suffix", name)

    def take(self, other: "LeftOut", below: str) -> None:
        """All that was left out in a folder."""
        for kind, (count, first) in other.kinds.items():
            before, known = self.kinds.get(kind, (0, f"{below}/{first}"))
            self.kinds[kind] = before + count, known

    def __str__(self) -> str:
        """Such as "3 .heic files (cat/0.heic, ...)"; empty where nothing was left out."""
        return ", ".join(
            f"{count} {kind} ({first}{', ...' if count > 1 else ''})"
            for kind, (count, first) in sorted(self.kinds.items())
        )

    def warn(self, where: Path) -> None:
        """Say so in one line, once."""
        if self.kinds:
            warnings.warn(f"{where}: not read: {self}", stacklevel=2)


def list_pictures_of(folder: Path, key: str) -> list[Path]:
    """The images that lie in a folder, by name.

    Args:
        folder: where to look; folders in it are not looked into.
        key: the option that named the folder.

    Raises:
        UserError: the folder is missing or has no image in it.
    """
    key = f"data.init_args.{key}"
    if not folder.is_dir():
        raise UserError("is not a folder", file=folder, key=key)
    left, files = LeftOut(), []
    for name, kind in _entries(folder, left):
        if kind == "folder":
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
    """What to say of a folder without images: which are looked for, and what there is."""
    return f"has no images ({', '.join(IMAGES)})" + (f"; found {left}" if left.kinds else "")


def images_below(folder: Path, left: LeftOut) -> list[str]:
    """Paths below a folder of all images in it and in folders of it, in the order of torchvision's.

    Raises:
        UserError: a folder cannot be listed.
    """
    found: list[tuple[str, str]] = []
    for below, name in _walk(folder, "", left, _above(folder)):
        if is_image(name):
            found.append((below, name))
        else:
            left.add_file(f"{below}{name}")
    # torchvision sorts folders by their paths, without the slash at the end
    return [below + name for below, name in sorted(found, key=lambda place: (place[0][:-1], place[1]))]


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or in folders of it; looks no further than the first."""
    return any(is_image(name) for _, name in _walk(folder, "", LeftOut(), _above(folder)))


def _above(folder: Path) -> tuple[tuple[int, int], ...]:
    return tuple(_identity(parent) for parent in folder.absolute().parents)


def _identity(folder: Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _walk(
    folder: Path, below: str, left: LeftOut, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, str]]:
    """The folder of each file, "" or with a slash at its end, and the file's name; links are followed."""
    here = (*above, _identity(folder / below))
    if here[-1] in above:
        left.add("links to a folder above them", below)
        return
    folders = []
    for name, kind in _entries(folder / below, left, below):
        if kind == "folder":
            folders.append(name)
        else:
            yield below, name
    for name in folders:
        yield from _walk(folder, f"{below}{name}/", left, here)


def _entries(folder: Path, left: LeftOut, below: str = "") -> list[tuple[str, str]]:
    """Names in a folder, sorted, each with "file" or "folder"; junk is counted."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    left.add(JUNK, below + entry.name)
                elif entry.is_dir():
                    found.append((entry.name, "folder"))
                elif entry.is_file():
                    found.append((entry.name, "file"))
                else:
                    left.add("broken links or devices", below + entry.name)
    except OSError as error:
        raise UserError(f"cannot be listed ({error.strerror})", file=folder) from error
    return sorted(found)
