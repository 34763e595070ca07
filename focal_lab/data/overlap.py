"""Finds images that are in two splits, even under different paths."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path


def all_among(tested: Iterable[str], validated: Iterable[str]) -> bool:
    """Whether all test images are validation images, by their paths; a warning counts them if some are."""
    others = set(map(_real, validated))
    found = [_real(path) in others for path in tested]
    count, twice = len(found), sum(found)
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


def _real(path: str) -> str:
    """A path without links; rows of a table are called FILE.parquet#ROW."""
    file, mark, row = path.rpartition("#") if ".parquet#" in path else (path, "", "")
    return os.path.realpath(file) + mark + row
