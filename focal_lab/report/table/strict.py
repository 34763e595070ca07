"""`focal-lab report SWEEP --strict`: what keeps a table from being published."""

import sys
from collections.abc import Iterable
from math import isfinite

from focal_lab.report.table.notes import incomparable
from focal_lab.report.table.records import COUNTED, Row, Table, row_name, unfinished
from focal_lab.sweep.run_folder.outcome import State


def strict_status(table: Table) -> int:
    """Print what keeps a table from being published; the exit status of --strict."""
    found = shortcomings(table)
    for shortcoming in found:
        print(f"focal-lab: --strict: {shortcoming}", file=sys.stderr)
    return 1 if found else 0


def shortcomings(table: Table) -> list[str]:
    """One line each; none if every planned run has a result, all of one commit, environment and data."""
    own = [row for row in table.rows if not row.reference]
    states = [(row, ", ".join(unfinished(row)) or ("" if row.runs else "no runs")) for row in own]
    outside = ["Runs of code outside a checkout."] if "no commit" in table.provenance.commits else []
    return [
        *(f"{row_name(row)}: {words}" for row, words in states if words),
        *(line for row in own for line in _unreported(row, table)),
        *outside,
        *table.provenance.mixed_tests,
        *incomparable(table),
    ]


def _unreported(row: Row, table: Table) -> Iterable[str]:
    for column in table.columns:
        entry = row.entries[column.key]
        short = 0 < entry.n < entry.planned and column.key not in COUNTED
        if entry.status == "not reported" or (short and row.states[State.FINISHED] == len(row.runs)):
            yield f"{row_name(row)}: {column.title} is reported by {entry.n} of {entry.planned} runs"
        if entry.mean is not None and not isfinite(entry.mean):
            yield f"{row_name(row)}: {column.title} is not a finite number"
