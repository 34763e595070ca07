"""Text files: read with or without a byte order mark, written whole or not at all. Standard library only."""

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without the byte order mark of Windows; UTF-16 where that is what the mark says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is neither.
    """
    with open(path, "rb") as stream:
        mark = stream.read(2)
    return path.read_text(encoding="utf-16" if mark in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")


def write_atomic(path: Path, text: str) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        OSError: the disk is full or the folder is not writable; an older file is untouched.
    """
    temporary = write_temporary(path, text)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_temporary(path: Path, text: str) -> Path:
    """The whole text in a file beside `path`, on the disk; its name tells who wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """New names in the folder are on the disk."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
