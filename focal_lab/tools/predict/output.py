"""Where the answers of `focal-lab predict` go."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from focal_lab.errors import UserError


@contextmanager
def table_stream(path: Path | None, force: bool) -> Iterator[TextIO]:
    """Where the table goes: stdout, or a file that appears when it is whole.

    Args:
        path: the file; None for stdout.
        force: whether a file that is there may be replaced.

    Raises:
        UserError: it is there, or cannot be written.
    """
    if path is None:
        yield sys.stdout
        return
    if path.is_dir():
        raise UserError("is a folder; name a file", file=path, key="--output")
    if path.exists() and not force:
        raise UserError("exists (overwrite it with --force)", file=path, key="--output")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as stream:
            yield stream
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", file=path, key="--output") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_folder(folder: Path, force: bool) -> None:
    """Make the folder that files go to.

    Args:
        folder: where.
        force: whether files may be in it already.

    Raises:
        UserError: it is not empty, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError("is not a folder", file=folder, key="--output")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UserError("is not empty (write into it with --force)", file=folder, key="--output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", file=folder, key="--output"
        ) from error
