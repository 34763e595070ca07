"""The label column of Parquet files: whole numbers or texts, of the same kind in all files of a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.sources.base import UNKNOWN
from focal_lab.data.sources.found import numbers_to
from focal_lab.errors import UserError

# numbers; texts; or how many rows, where none has a label
Labels = NDArray[np.int64] | list[str] | int


def read_labels(column: Any, name: str, path: Path, names: Sequence[str] | None) -> Labels:
    """The labels of a file.

    Args:
        column: pyarrow's, in chunks.
        name: of the column.
        path: of the file.
        names: of the classes, where the file has them.

    Raises:
        UserError: a row has none, or one that is not a class. Null or -1 in all rows are secret labels.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count == len(column):
        return len(column)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"has no label in the column {name} (null)", file=f"{path}#{row}")
    if pa.types.is_integer(kind):
        return _numbers(column.to_pylist(), name, path, names)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"its column {name} is of {kind}; labels are whole numbers or texts", file=path)
    texts: list[str] = column.to_pylist()
    for row, text in enumerate(texts):
        if not text or text != text.strip() or (names is not None and text not in names):
            raise UserError(f"the column {name} says {text!r}, which is not a class", file=f"{path}#{row}")
    return texts


def _numbers(values: list[int], name: str, path: Path, names: Sequence[str] | None) -> Labels:
    if set(values) == {UNKNOWN}:
        return len(values)
    most = float("inf") if names is None else len(names)
    for row, value in enumerate(values):
        if not 0 <= value < most:
            raise UserError(
                f"the column {name} says {value}, which is not a class"
                + ("" if names is None else f" (use 0 to {len(names) - 1})"),
                file=f"{path}#{row}",
            )
    numbers_to(max(values), path)
    return np.array(values, np.int64)


def join_labels(
    files: Sequence[tuple[Path, Labels]], names: Sequence[str] | None, name: str
) -> tuple[list[str], NDArray[np.int64], bool]:
    """The classes' names, the label of each row, and whether the files themselves number the classes.

    Raises:
        UserError: files have labels of different kinds, or there are no rows.
    """
    filled = [(path, part) for path, part in files if not isinstance(part, int) or part]
    if not filled:
        raise UserError("has no rows", file=files[0][0])
    first, parts = filled[0][0], [part for _, part in filled]
    for path, part in filled:
        if type(part) is not type(parts[0]):
            raise UserError(
                f"its column {name} has {_kind(part)}, and that of {first} has {_kind(parts[0])}", file=path
            )
    if isinstance(parts[0], int):  # as in ImageNet's test split, whose labels are secret
        return list(names or ()), np.full(sum(parts), UNKNOWN, np.int64), False  # type: ignore[arg-type]
    if isinstance(parts[0], list):
        texts = [text for part in parts for text in part]  # type: ignore[union-attr]
        classes = list(names or sorted(set(texts)))
        places = {text: label for label, text in enumerate(classes)}
        return classes, np.array([places[text] for text in texts], np.int64), False
    numbers = np.concatenate(parts)
    return list(names or numbers_to(int(numbers.max()), first)), numbers, names is not None


def _kind(part: Labels) -> str:
    return "no labels" if isinstance(part, int) else "texts" if isinstance(part, list) else "numbers"
