"""The label column of Parquet files: integers or strings, of the same kind in all files of a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.sources.base import UNKNOWN, numbers_to
from focal_lab.errors import UserError

# numbers; strings; or the number of rows, if none has a label
Labels = NDArray[np.int64] | list[str] | int


def read_labels(column: Any, name: str, path: Path, names: Sequence[str] | None) -> Labels:
    """The labels in pyarrow's column `name` of a file; null or -1 in all rows means that they are secret.

    Raises UserError if a row has no label, or one that is not among the classes' `names`.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count == len(column):
        return len(column)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"has no label in the column {name} (null)", file=f"{path}#{row}")
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(kind):
        if set(values) == {UNKNOWN}:
            return len(values)
        most = float("inf") if names is None else len(names)
        wrong = next((row for row, value in enumerate(values) if not 0 <= value < most), None)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        wrong = next((row for row, text in enumerate(values) if not _is_class(text, names)), None)
    else:
        raise UserError(f"its column {name} is of {kind}; labels are integers or strings", file=path)
    if wrong is not None:
        rule = f" (use 0 to {len(names) - 1})" if names is not None and pa.types.is_integer(kind) else ""
        raise UserError(
            f"the column {name} has {values[wrong]!r}, which is not a class{rule}", file=f"{path}#{wrong}"
        )
    if not pa.types.is_integer(kind):
        return values
    numbers_to(max(values), path)
    return np.array(values, np.int64)


def _is_class(text: str, names: Sequence[str] | None) -> bool:
    return bool(text) and text == text.strip() and (names is None or text in names)


def join_labels(
    files: Sequence[tuple[Path, Labels]], names: Sequence[str] | None, name: str
) -> tuple[list[str], NDArray[np.int64], bool]:
    """The classes' names, the label of each row, and whether the files themselves number the classes.

    Raises UserError if files have labels of different kinds, or there are no rows.
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
    if isinstance(parts[0], int):  # such as ImageNet's test split, whose labels are secret
        return list(names or ()), np.full(sum(parts), UNKNOWN, np.int64), False  # type: ignore[arg-type]
    if isinstance(parts[0], list):
        texts = [text for part in parts for text in part]  # type: ignore[union-attr]
        classes = list(names or sorted(set(texts)))
        labels = {text: label for label, text in enumerate(classes)}
        return classes, np.array([labels[text] for text in texts], np.int64), False
    numbers = np.concatenate(parts)
    return list(names or numbers_to(int(numbers.max()), first)), numbers, names is not None


def _kind(part: Labels) -> str:
    return "no labels" if isinstance(part, int) else "strings" if isinstance(part, list) else "numbers"
