"""The label column of Parquet files: integers or strings, of the same kind in all files of a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.sources.base import UNKNOWN, numbers_to
from focal_lab.errors import UserError

_KINDS = {type(None): "no labels", int: "numbers", str: "strings"}


def read_labels(column: Any, name: str, path: Path, names: Sequence[str] | None) -> list[Any]:
    """The labels in pyarrow's column `name` of a file; all None if they are secret: null or -1 in all rows.

    Raises UserError if a row has no label, or one that is not among the classes' `names`.
    """
    values: list[Any] = column.to_pylist()
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return values
    if not (kinds == {int} or kinds == {str}):
        raise UserError(f"its column {name} is of {column.type}; labels are integers or strings", file=path)
    if None in values:
        raise UserError(f"has no label in the column {name} (null)", file=f"{path}#{values.index(None)}")
    if set(values) == {UNKNOWN}:
        return [None] * len(values)
    rule = ""
    if kinds == {str}:
        known = None if names is None else set(names)
        right = [bool(v) and v == v.strip() and (known is None or v in known) for v in values]
    elif names is None:
        right = [value >= 0 for value in values]
    else:
        right = [0 <= value < len(names) for value in values]
        rule = f" (use 0 to {len(names) - 1})"
    if not all(right):
        row = right.index(False)
        raise UserError(
            f"the column {name} has {values[row]!r}, which is not a class{rule}", file=f"{path}#{row}"
        )
    return values


def join_labels(
    files: Sequence[tuple[Path, list[Any]]], names: Sequence[str] | None, name: str
) -> tuple[list[str], NDArray[np.int64], bool]:
    """The classes' names, the label of each row, and whether the files themselves number the classes.

    Raises UserError if files have labels of different kinds, or there are no rows.
    """
    filled = [(path, values) for path, values in files if values]
    if not filled:
        raise UserError("has no rows", file=files[0][0])
    first, kind = filled[0][0], type(filled[0][1][0])
    for path, values in filled:
        if type(values[0]) is not kind:
            raise UserError(
                f"its column {name} has {_KINDS[type(values[0])]}, and that of {first} has {_KINDS[kind]}",
                file=path,
            )
    every = [value for _, values in filled for value in values]
    if kind is int:
        classes = list(names or numbers_to(max(every), first))
        return classes, np.array(every, np.int64), names is not None
    if kind is str:
        classes = list(names or sorted(set(every)))
        labels = {text: label for label, text in enumerate(classes)}
        return classes, np.array([labels[text] for text in every], np.int64), False
    # such as ImageNet's test split, whose labels are secret
    return list(names or ()), np.full(len(every), UNKNOWN, np.int64), False
