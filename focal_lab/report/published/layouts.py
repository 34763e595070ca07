"""The paper's numbers, in paper_tables.yaml; layouts.yaml says which tables have rows of a sweep's cells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, one_of


@dataclass(frozen=True)
class PublishedTable:
    """A published table; layouts.yaml explains the other fields.

    Attributes:
        key: in `paper_tables.yaml`, and a sweep's `paper`.
    """

    key: str
    cite: str
    setting: str
    factors: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    split: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    counted_task: str = "classification"
    others: bool = False
    sizes: tuple[float, ...] = ()

    def groups(self) -> list[tuple[str, str, dict[str, str]]]:
        """Factor, label and fields of each group of columns; a single one without names if there are none."""
        found = [(name, label, fields) for name, part in self.split.items() for label, fields in part.items()]
        return found or [("", "", self.fields)]


@dataclass(frozen=True)
class PublishedCell:
    """What the paper prints for a cell.

    Attributes:
        place: its row and group of columns in the published table.
        values: column key -> number, in the unit of the column's heading.
    """

    place: tuple[int, int]
    values: dict[str, float]


@cache
def layouts() -> dict[str, PublishedTable]:
    """Every published table that a sweep file may name under `paper`."""
    return {key: PublishedTable(key, **fields) for key, fields in _load("layouts.yaml").items()}


@cache
def _load(name: str) -> dict[str, Any]:
    import yaml

    # The C loader reads paper_tables.yaml in 30 ms, the Python one in 300.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content: dict[str, Any] = yaml.load(Path(__file__).with_name(name).read_text(encoding="utf-8"), loader)
    return content


def paper_tables() -> dict[str, Any]:
    """Everything in `paper_tables.yaml`: table key -> rows, or rows with notes, as in the paper."""
    return _load("paper_tables.yaml")


def published(table: str) -> list[dict[str, Any]]:
    """The rows of a published table, in the paper's order; fields carry their unit (`params_M`)."""
    content = paper_tables()[table]
    rows: list[dict[str, Any]] = content["rows"] if isinstance(content, dict) else content
    return rows


def known_papers() -> tuple[str, ...]:
    """The values of `paper` in a sweep file."""
    return tuple(layouts())


def find_layout(paper: str) -> PublishedTable:
    """The published table of that key.

    Raises:
        UserError: there is none; the message lists those that exist.
    """
    if paper not in layouts():
        raise UserError(f"{paper!r} is not a published table with a layout (use {one_of(layouts())} or null)")
    return layouts()[paper]


def published_values(layout: PublishedTable, labels: Mapping[str, str]) -> PublishedCell | None:
    """What the paper prints for a cell with these labels; None if the table has no row for it.

    A sweep that varies more, or fewer, factors than the published table has no counterpart there: the paper's
    number belongs to one unknown level of the other factor.
    """
    if labels.keys() != layout.factors.keys():
        return None
    wanted = {
        factor: _word(layout.aliases.get(factor, {}).get(_word(label), label))
        for factor, label in labels.items()
    }
    for names, cell in published_rows(layout):
        if {factor: _word(name) for factor, name in names.items()} == wanted:
            return cell
    return None


def published_rows(layout: PublishedTable) -> Iterator[tuple[dict[str, str], PublishedCell]]:
    """Every cell of the published table with the paper's labels, in the paper's order.

    Labels of rows that a sweep could not measure have the method added.
    """
    for place, row in enumerate(published(layout.key)):
        for group, (_, name, fields) in enumerate(layout.groups()):
            labels = {
                factor: str(row[column]) if column else name for factor, column in layout.factors.items()
            }
            method = row.get("method", "")
            if _word(method) != _word(layout.where.get("method", "")):
                labels = {factor: f"{label} ({method})" for factor, label in labels.items()}
            yield labels, PublishedCell((place, group), _numbers(row, fields))


def _numbers(row: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for key, name in fields.items():
        value: Any = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[key] = float(value)
    return found


def _word(value: Any) -> str:
    """`False`, `false` and `FALSE` are one label; so are 7 and "7"."""
    return str(value).strip().casefold()
