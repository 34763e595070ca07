"""The numbers that plots take from a table, each network once."""

from collections.abc import Sequence
from dataclasses import dataclass

from focal_lab.report.plots.style import PLAIN, SERIES, SeriesStyle, series_style
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.records import Effect, Entry, Row, Table, shown_name
from focal_lab.sweep.spec.columns import MAIN, Column


@dataclass(frozen=True)
class Network:
    """A row with its own runs, named after all rows that share them; the style is the same in all plots."""

    name: str
    row: Row
    style: SeriesStyle


def networks(table: Table) -> list[Network]:
    """The rows with runs of their own, without the rows that only the paper has."""
    names = [shown_name(row) for row in table.rows]
    for index, row in enumerate(table.rows):
        if row.same_as is not None:
            names[row.same_as] += f" = {names[index]}"
    return [
        Network(name, row, style)
        for name, row, style in zip(names, table.rows, row_styles(table), strict=True)
        if row.same_as is None and not row.reference
    ]


def own_rows(table: Table) -> list[Row]:
    """The cells of the sweep, without the rows that only the paper has."""
    return [row for row in table.rows if not row.reference]


def references(table: Table) -> list[Network]:
    """The rows that only the paper has."""
    return [Network(shown_name(row), row, PLAIN) for row in table.rows if row.reference]


def row_styles(table: Table) -> list[SeriesStyle]:
    """Style of each row: its own colour, or of many rows that of the first label; published rows are grey."""
    own = [index for index, row in enumerate(table.rows) if not row.reference]
    groups = [next(iter(table.rows[index].labels.values()), "") for index in own]
    distinct = list(dict.fromkeys(groups))
    places = list(range(len(own)))
    if len(own) > len(SERIES) and 1 < len(distinct) <= len(SERIES):
        members = [groups[:place].count(group) for place, group in enumerate(groups)]
        places = [
            distinct.index(group) + len(SERIES) * member
            for group, member in zip(groups, members, strict=True)
        ]
    found = dict(zip(own, map(series_style, places), strict=True))
    return [found.get(index, PLAIN) for index in range(len(table.rows))]


def main_columns(table: Table) -> list[Column]:
    """The main metric of each task, where something was measured."""
    mains = set(MAIN.values())
    return [
        column
        for column in table.columns
        if column.key in mains and any(row.entries[column.key].n for row in table.rows)
    ]


def same_scale(table: Table) -> bool:
    """Whether the paper's numbers are of the same data and networks; others get axes of their own."""
    entries = [row.entries[column.key] for row in own_rows(table) for column in main_columns(table)]
    return not any(entry.unlike_paper for entry in entries if entry.mean is not None)


def paper_words(table: Table) -> str:
    """`published: table 8, ImageNet-1K at 224 px, ...`."""
    where = ", ".join(part for part in (table.cite, table.setting) if part)
    return f"published ({where})" if where else "published"


def interval(found: Entry | Effect) -> float | None:
    """Half of the 95 % interval; None for fewer than three seeds, which are not drawn."""
    return found.half_width if found.n >= LEAST_SEEDS else None


def interval_words(entries: Sequence[Entry]) -> str:
    """A sentence about the error bars, or why there are none."""
    counts = sorted({entry.n for entry in entries if interval(entry) is not None})
    if not counts:
        return f"Fewer than {LEAST_SEEDS} seeds per cell: no intervals."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    fewer = any(0 < entry.n < LEAST_SEEDS for entry in entries)
    none = f" None where there are fewer than {LEAST_SEEDS}." if fewer else ""
    known = [entry.images > 0 for entry in entries if interval(entry) is not None]
    images = " and the test images" if all(known) else ""
    if any(known) and not all(known):
        images = " and, where runs have predictions, the test images"
    return f"Bars: 95 % interval of the mean over {seeds} seeds{images}.{none}"


def limits(entries: Sequence[Entry]) -> tuple[float, float]:
    """The limits of an axis with all values and intervals."""
    ends: list[float] = []
    for entry in entries:
        ends += entry.values.values()
        if entry.mean is not None:
            half_width = interval(entry) or 0.0
            ends += [entry.mean - half_width, entry.mean + half_width]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.08 or max(abs(high) * 0.02, 1e-6)
    return low - room, high + room
