"""A folder that is made to hold what it should: links to event files, and generated ones."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from focal_lab.errors import UserError
from focal_lab.utils.file_lock import FileLock

# Ends the names of generated files: whatever else lies in the folder is left alone.
MARK = ".focal-lab"
# TensorBoard reads the files of a folder in the order of their names, which begin with seconds since 1970.
FIRST, LAST = 0, 9_999_999_999
_TEMPORARY = ".making-"


@dataclass
class Tree:
    """What a folder should hold.

    Attributes:
        links: place in the folder -> file that it shows.
        files: place in the folder -> what makes its content; a file that is there is not made again, so
            that a name must tell one content from another.
        slow: the same, for what takes seconds to make.
    """

    links: dict[PurePosixPath, Path] = field(default_factory=dict)
    files: dict[PurePosixPath, Callable[[], bytes]] = field(default_factory=dict)
    slow: dict[PurePosixPath, Callable[[], bytes]] = field(default_factory=dict)


def event_name(key: str, place: int = FIRST) -> str:
    """The name of a generated event file.

    Args:
        key: tells its content from any other.
        place: FIRST or LAST among the files of its folder.
    """
    return f"events.out.tfevents.{place:010d}.{key}{MARK}"


def make_tree(root: Path, tree: Tree, *, slow: Callable[[], bool] = lambda: True) -> None:
    """Add what is missing and remove what should no longer be there.

    Others may do the same at the same time; readers see whole files only. Generated files come before the
    links beside them.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # relative, so that the runs can be moved with all that is in them
        real, folders = root.resolve(), {path.parent: path.parent.resolve() for path in tree.links.values()}
        with FileLock(root / ".lock"):
            _remove_stale(root, tree)
            for place, make in tree.files.items():
                _write(root / place, make)
            for place, target in tree.links.items():
                shown = folders[target.parent] / target.name
                _link(root / place, os.path.relpath(shown, (real / place).parent))
            for place, make in tree.slow.items():
                if slow():
                    _write(root / place, make)
    except OSError as error:
        raise UserError(f"cannot be written to: {error.strerror}", file=error.filename or root) from error


def _write(path: Path, make: Callable[[], bytes]) -> None:
    if not path.exists():
        content = make()
        _appear(path, lambda temporary: temporary.write_bytes(content))


def _link(path: Path, shown: str) -> None:
    try:
        if os.readlink(path) == shown:
            return
    except OSError:  # not there, or no link
        pass
    _appear(path, lambda temporary: temporary.symlink_to(shown))


def _appear(path: Path, make: Callable[[Path], object]) -> None:
    """Make something under another name, and then give it its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        make(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_stale(root: Path, tree: Tree) -> None:
    wanted = {str(place) for place in (*tree.links, *tree.files, *tree.slow)}
    for folder, names in _files(root):
        for name in names:
            path = folder / name
            ours = path.is_symlink() or name.endswith(MARK) or name.startswith(_TEMPORARY)
            if ours and str(path.relative_to(root)) not in wanted:
                path.unlink(missing_ok=True)
        if folder != root:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with its files, the innermost first."""
    for folder, inner, names in os.walk(root, topdown=False):
        # a link to a folder is a file here: nothing beyond it is ours
        links = [name for name in inner if os.path.islink(os.path.join(folder, name))]
        yield Path(folder), [*names, *links]
