"""Hugging Face's image tables: Parquet files with the encoded images in a column, read in place.

Needs pyarrow (the extra `parquet`), imported where it is used. Own code rather than `datasets`, which first
writes an Arrow copy of the whole data set.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.classification.class_names import differing
from focal_lab.data.sources.image_source import UNKNOWN, ImageSource, LabelledImages, numbers_to
from focal_lab.errors import UserError

# Row groups that a process keeps: about a window of `EpochSampler`.
_KEPT_BYTES = 512 * 2**20
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABELS = ("label", "labels", "cls", "fine_label")

# of labels, by the type of their values
_KINDS = {type(None): "no labels", int: "numbers", str: "strings"}

# columns of images and labels, and the names of the classes
_Schema = tuple[str, str, list[str] | None]


class Columns(NamedTuple):
    """The columns of images and labels; None to find them."""

    image: str | None = None
    label: str | None = None


class RowGroup(NamedTuple):
    """A part of a file that is read as a whole; `first` is its first row there."""

    path: str
    number: int
    first: int
    rows: int


def open_tables(paths: Sequence[Path], where: Path, columns: Columns) -> LabelledImages:
    """The images of one split, in Parquet files that messages call `where`.

    Raises UserError if pyarrow is missing, a file is damaged, or its columns do not fit.
    """
    parquet = _pyarrow(paths[0])
    groups: list[RowGroup] = []
    labels: list[tuple[Path, list[Any]]] = []
    first: _Schema | None = None
    for path in paths:
        try:
            # no threads: they would not survive a fork
            table = parquet.ParquetFile(path, pre_buffer=False)
            image, label = _columns(table.schema_arrow, path, columns)
            names = _class_names(table.schema_arrow, label, path)
            first = first or (image, label, names)
            _compare((image, label, names), path, first, paths[0])
            read = table.read(columns=[label], use_threads=False)
            labels.append((path, _read_labels(read.column(0), label, path, names)))
            start = 0
            for number in range(table.metadata.num_row_groups):
                rows = table.metadata.row_group(number).num_rows
                groups.append(RowGroup(str(path), number, start, rows))
                start += rows
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are subclasses
            raise UserError(f"is damaged or not a Parquet file ({error})", file=path) from error
    classes, numbers, numbered = _join_labels(labels, names, label)
    source = ParquetSource(image, groups, numbers)
    return LabelledImages(where=where, classes=classes, fixed=numbered, own=source)


def _compare(here: _Schema, path: Path, there: _Schema, first: Path) -> None:
    """Refuse a file whose columns or classes are not those of the first one."""
    if here[:2] != there[:2]:
        raise UserError(f"has columns {here[:2]}, and {first} has {there[:2]}", file=path)
    difference = differing(here[2] or ["(no names)"], there[2] or ["(no names)"])
    if difference:
        raise UserError(f"its classes are not those of {first}: {difference}", file=path)


class ParquetSource(ImageSource):
    """Reads whole row groups, the least that Parquet can, and keeps those used last.

    Args:
        column: of the images; `image.bytes` for a column of a structure.
        groups: the row groups of all files, in order.
        labels: of all rows.
    """

    def __init__(self, column: str, groups: Sequence[RowGroup], labels: NDArray[np.int64]) -> None:
        self.labels = labels
        self._column, self._row_groups = column, list(groups)
        counts = [group.rows for group in groups]
        self.groups: NDArray[np.int64] = np.repeat(np.arange(len(groups)), counts)
        self._starts = np.cumsum([0, *counts])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._process = os.getpid()

    def read(self, index: int) -> bytes:
        group = int(self.groups[index])
        value = self._group(group)[index - int(self._starts[group])].as_py()
        if value is None:
            raise ValueError("the table names a file, but does not contain it")
        return bytes(value)

    def name(self, index: int) -> str:
        group = int(self.groups[index])
        place = self._row_groups[group]
        return f"{place.path}#{place.first + index - int(self._starts[group])}"

    def _group(self, group: int) -> Any:
        """The images of a row group, in Arrow's memory."""
        if self._process != os.getpid():  # after a fork each process keeps its own
            self._kept, self._process = OrderedDict(), os.getpid()
        if group not in self._kept:
            path, number, *_ = self._row_groups[group]
            table = _pyarrow(Path(path)).ParquetFile(path, pre_buffer=False)
            read = table.read_row_group(number, columns=[self._column], use_threads=False).flatten()
            self._kept[group] = read.column(0)
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict()}


def _pyarrow(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            "is a Parquet file, which needs pyarrow (pip install 'focal-lab[parquet]')", file=path
        ) from error
    return parquet


def _columns(schema: Any, path: Path, columns: Columns) -> tuple[str, str]:
    """The columns of encoded images and labels: by Hugging Face's types, else by usual names."""
    found = []
    for kind, role, asked, usual in (
        ("Image", "image", columns.image, _IMAGES),
        ("ClassLabel", "label", columns.label, _LABELS),
    ):
        key, names = f"data.init_args.{role}_column", schema.names
        if asked is not None and asked not in names:
            raise UserError(f"has no column {asked}: it has {', '.join(names)}", file=path, key=key)
        typed = [
            name
            for name, feature in _features(schema).items()
            if isinstance(feature, dict) and feature.get("_type") == kind
        ]
        usable = [asked] if asked is not None else typed or [name for name in usual if name in names]
        if not usable or (asked is None and len(typed) > 1):
            which = (
                f"several columns may be it: {', '.join(typed)}" if typed else f"it has {', '.join(names)}"
            )
            raise UserError(f"name the column ({which})", file=path, key=key)
        found.append(usable[0])
    image, label = found
    kind = schema.field(image).type
    # a structure of the file's content and its path
    fields = [kind.field(i).name for i in range(kind.num_fields)]
    return (f"{image}.bytes" if "bytes" in fields else image), label


def _features(schema: Any) -> dict[str, Any]:
    """The columns' types in Hugging Face's metadata."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(metadata)["info"]["features"] if metadata else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(schema: Any, label: str, path: Path) -> list[str] | None:
    feature = _features(schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not names:
        return None
    wrong = [name for name in names if not isinstance(name, str) or names.count(name) > 1]
    if wrong:
        raise UserError(f"names the class {wrong[0]!r}, which is not text or occurs twice", file=path)
    return list(names)


def _read_labels(column: Any, name: str, path: Path, names: Sequence[str] | None) -> list[Any]:
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
        numbers_to(max(values), path)
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


def _join_labels(
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
