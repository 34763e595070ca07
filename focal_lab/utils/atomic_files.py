"""Text files with or without a byte order mark, and files that are written whole or not at all."""

import os
import shutil
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from focal_lab.errors import UserError


def read_text(path: Path) -> str:
    """Read UTF-8, or UTF-16 where the byte order mark says so.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither.
    """
    with open(path, "rb") as stream:
        mark = stream.read(2)
    return path.read_text(encoding="utf-16" if mark in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder. Text is written as UTF-8.

    Raises:
        OSError: the disk is full or the folder is not writable; an older file is untouched.
    """
    temporary = write_temporary(path, content)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_temporary(path: Path, content: str | bytes) -> Path:
    """Write and fsync a file beside `path` whose name has this process's ID; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that renamed and new files survive a power failure."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def is_alive(pid: str) -> bool:
    """Whether the process of that ID, as in the name of its temporary file, is still running."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != "0"


@contextmanager
def atomic_output(
    target: Path, *, force: bool, key: str = "--output", holds: Collection[str] | None = None
) -> Iterator[Path]:
    """A temporary file or folder beside `target` that replaces it when the block succeeds.

    Args:
        target: the file to write, or with `holds` the folder.
        force: whether it may be overwritten.
        key: the option that names it, for messages.
        holds: names of the folder's files; a folder with others is not overwritten.

    Raises:
        UserError: the target exists, is of the wrong kind, has no parent folder, or cannot be written.
    """
    if target.exists() or target.is_symlink():
        if target.is_dir() != (holds is not None):
            raise UserError(f"is {'not ' if holds else ''}a folder", file=target, key=key)
        if not force:
            raise UserError("exists (overwrite it with --force)", file=target, key=key)
        if holds and not {entry.name for entry in target.iterdir()} <= set(holds):
            raise UserError("holds other files, too; name a new folder", file=target, key=key)
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist", file=target, key=key)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if holds is None:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that only their owner may read
        else:
            temporary.mkdir()
            yield temporary
            shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", file=target, key=key) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
