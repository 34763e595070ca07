"""Hugging Face's tables of pictures: Parquet files with the encoded pictures in a column.

pyarrow is needed for these alone (the extra `parquet`), and imported where it is used.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focal_lab.data.classification.class_names import differing
from focal_lab.data.sources.base import Source, relabelled
from focal_lab.data.sources.found import Found
from focal_lab.data.sources.parquet_labels import Labels, join_labels, read_labels
from focal_lab.errors import UserError

# Decoded row groups that a process keeps: as many as a window of `EpochSampler` usually has.
_KEPT_BYTES = 512 * 2**20
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABELS = ("label", "labels", "cls", "fine_label")


class Columns(NamedTuple):
    """Which columns hold pictures and labels; None finds them."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Tables(Found):
    """Pictures in Parquet files."""

    own: "ParquetSource"
    numbered: bool

    @property
    def fixed(self) -> bool:
        """Numbers count along the names in the files."""
        return self.numbered

    def source(self, classes: Sequence[str]) -> "ParquetSource":
        """The pictures; labels count along `classes`."""
        places = {name: label for label, name in enumerate(classes)}
        return relabelled(self.own, [places[name] for name in self.classes])


def open_tables(paths: Sequence[Path], where: Path, columns: Columns = Columns()) -> Tables:  # noqa: B008
    """The pictures of one split.

    Args:
        paths: Parquet files, in their order.
        where: what to call them together.
        columns: which ones to read.

    Raises:
        UserError: pyarrow is missing, a file is damaged, or the columns are not what they should be.
    """
    parquet = _pyarrow(paths[0])
    groups: list[tuple[int, int, int]] = []  # file, row group, rows
    labels: list[tuple[Path, Labels]] = []
    known: list[tuple[tuple[str, str], list[str] | None]] = []
    for number, path in enumerate(paths):
        try:
            # no threads of its own: they would not survive a fork
            table = parquet.ParquetFile(path, pre_buffer=False)
            chosen = _columns(table.schema_arrow, path, columns)
            known.append((chosen, _class_names(table.schema_arrow, chosen[1], path)))
            _compare(known, paths)
            read = table.read(columns=[chosen[1]], use_threads=False)
            labels.append((path, read_labels(read.column(0), chosen[1], path, known[0][1])))
            rows = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these kinds, too
            raise UserError(f"is damaged or no Parquet file ({error})", file=path) from error
        groups += [(number, group, count) for group, count in enumerate(rows)]
    (image, label), names = known[0]
    classes, numbers, numbered = join_labels(labels, names, label)
    return Tables(where, classes, ParquetSource(paths, image, groups, numbers), numbered)


def _compare(known: Sequence[tuple[tuple[str, str], list[str] | None]], paths: Sequence[Path]) -> None:
    """Refuse a file whose columns or classes are not those of the first one."""
    (columns, names), (first_columns, first_names) = known[-1], known[0]
    path = paths[len(known) - 1]
    if columns != first_columns:
        raise UserError(f"has columns {columns}, and {paths[0]} has {first_columns}", file=path)
    difference = differing(names or ["(no names)"], first_names or ["(no names)"])
    if difference:
        raise UserError(f"its classes are not those of {paths[0]}: {difference}", file=path)


class ParquetSource(Source):
    """Reads row groups as a whole, the least that Parquet can, and keeps the latest of them.

    Args:
        paths: Parquet files.
        column: of the pictures; `image.bytes` for a column of a structure.
        groups: file, row group in it, and rows, in order.
        labels: of all rows.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        column: str,
        groups: Sequence[tuple[int, int, int]],
        labels: NDArray[np.int64],
    ) -> None:
        self.labels = labels
        self._paths, self._column, self._places = [str(path) for path in paths], column, list(groups)
        counts = [rows for _, _, rows in groups]
        self.groups = np.repeat(np.arange(len(groups)), counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        # row of the whole that each file begins with
        files = [file for file, _, _ in groups]
        self._file_starts = self._starts[[files.index(file) for file in files]]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._process = os.getpid()

    def read(self, index: int) -> bytes | Image.Image:
        """The encoded picture.

        Raises:
            ValueError: the row has none.
        """
        assert self.groups is not None
        group = int(self.groups[index])
        value = self._group(group)[index - int(self._starts[group])].as_py()
        if value is None:
            raise ValueError("the table names a file and does not hold its content")
        return bytes(value)

    def name(self, index: int) -> str:
        """The file's path and the row in it."""
        assert self.groups is not None
        group = int(self.groups[index])
        return f"{self._paths[self._places[group][0]]}#{index - int(self._file_starts[group])}"

    def _group(self, group: int) -> Any:
        """The pictures of a row group, kept as Arrow's memory."""
        if self._process != os.getpid():  # after a fork each process keeps its own
            self._kept, self._process = OrderedDict(), os.getpid()
        if group not in self._kept:
            file, number, _ = self._places[group]
            table = _pyarrow(Path(self._paths[file])).ParquetFile(self._paths[file], pre_buffer=False)
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
    """The columns of the encoded pictures and of the labels: by Hugging Face's types, else by usual names."""
    features = _features(schema)
    typed = {
        kind: [
            name for name, told in features.items() if isinstance(told, dict) and told.get("_type") == kind
        ]
        for kind in ("Image", "ClassLabel")
    }
    image = _chosen(schema.names, columns.image, typed["Image"], _IMAGES, path, "image_column")
    label = _chosen(schema.names, columns.label, typed["ClassLabel"], _LABELS, path, "label_column")
    kind = schema.field(image).type
    # a structure of the file's content and its path
    held = [kind.field(i).name for i in range(kind.num_fields)]
    return (f"{image}.bytes" if "bytes" in held else image), label


def _chosen(
    names: Sequence[str],
    asked: str | None,
    typed: Sequence[str],
    usual: Sequence[str],
    path: Path,
    option: str,
) -> str:
    key = f"data.init_args.{option}"
    if asked is not None:
        if asked not in names:
            raise UserError(f"has no column {asked}: it has {', '.join(names)}", file=path, key=key)
        return asked
    found = list(typed) or [name for name in usual if name in names]
    if not found or len(typed) > 1:
        which = f"several columns may be it: {', '.join(typed)}" if typed else f"it has {', '.join(names)}"
        raise UserError(f"name the column ({which})", file=path, key=key)
    return found[0]


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's library notes of the columns."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(noted)["info"]["features"] if noted else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(schema: Any, label: str, path: Path) -> list[str] | None:
    told = _features(schema).get(label)
    names = told.get("names") if isinstance(told, dict) else None
    if not names:
        return None
    wrong = [name for name in names if not isinstance(name, str) or names.count(name) > 1]
    if wrong:
        raise UserError(f"names the class {wrong[0]!r}, which is twice there or no text", file=path)
    return list(names)
