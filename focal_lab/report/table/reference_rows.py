"""Rows of the published table that a sweep does not train, inserted in the paper's order."""

from collections.abc import Sequence
from dataclasses import replace

from focal_lab.report.published.layouts import PublishedTable, published_rows, published_values
from focal_lab.report.table.records import Entry, Row
from focal_lab.sweep.run_folder.outcome import State


def with_references(rows: Sequence[Row], layout: PublishedTable, keys: Sequence[str]) -> list[Row]:
    """The rows and those of the published table that they lack.

    Args:
        rows: those of the sweep.
        layout: of the published table.
        keys: columns of the sweep's table.

    Returns:
        In the paper's order, rows that the paper does not have last; the rows themselves if the sweep varies
        other factors than the published table.
    """
    if not rows or rows[0].labels.keys() != layout.factors.keys():
        return list(rows)
    placed = []
    for index, row in enumerate(rows):
        found = published_values(layout, row.labels)
        placed.append((found.place if found else (len(rows) + 10**6, index), row))
    taken = {place for place, _ in placed}
    for labels, found in published_rows(layout):
        values = {key: found.values[key] for key in keys if key in found.values}
        if found.place not in taken and values:
            entries = {key: Entry(None, None, None, 0, 0, values.get(key), "not planned", {}) for key in keys}
            states = {str(state): 0 for state in State}
            placed.append((found.place, Row(labels, entries, states, (), True, None, reference=True)))
    placed.sort(key=lambda pair: pair[0])
    places = {id(row): index for index, (_, row) in enumerate(placed)}
    return [
        row if row.same_as is None else replace(row, same_as=places[id(rows[row.same_as])])
        for _, row in placed
    ]
