"""Finds images that are in two splits, even under different paths."""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

_TABLE = ".parquet#"  # followed by the row


def all_among(tested: Iterable[str], validated: Iterable[str]) -> bool:
    """Whether all test images are validation images, by their paths; a warning counts them if some are."""
    others, count, twice = set(_real(validated)), 0, 0
    for path in _real(tested):
        count += 1
        twice += path in others
    if 0 < twice < count:
        warnings.warn(
            f"{twice} of {count} test images are also validation images, by which the best epoch is chosen: "
            "the test metrics are too optimistic",
            stacklevel=3,
        )
    return 0 < count == twice


def warn_of_training(split: str, place: Path, trained: Path) -> None:
    """Warn if a split is read from the folder or file that is trained on, or from a link to it."""
    if place.resolve() == trained.resolve():
        warnings.warn(
            f"{place}: is also used for training: the metrics of {split} say nothing about unseen images",
            stacklevel=3,
        )


def _real(paths: Iterable[str]) -> Iterator[str]:
    """Paths without links; the file system is asked once per folder, which has a thousand images."""
    folders: dict[str, tuple[str, set[str]]] = {}
    for path in paths:
        table, mark, row = path.rpartition(_TABLE)
        folder, name = (table + _TABLE[:-1], row) if mark else os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder), _links(folder)
        real, links = folders[folder]
        yield os.path.realpath(path) if name in links else os.path.join(real, name)


def _links(folder: str) -> set[str]:
    """Names of the links in a folder; none in an archive."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:
        return set()
