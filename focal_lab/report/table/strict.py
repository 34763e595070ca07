"""What keeps a table from being published: `focal-lab report SWEEP --strict`."""

from collections.abc import Iterable
from math import isfinite

from focal_lab.report.formats.grid import row_name
from focal_lab.report.table.model import COUNTED, Table
from focal_lab.report.table.provenance import short_commit
from focal_lab.sweep.run_folder.outcome import State


def shortcomings(table: Table) -> list[str]:
    """One line for each; none: every planned run has its result, all of one committed code and setting."""
    return [*_unfinished(table), *_unreported(table), *_mixed(table)]


def _unfinished(table: Table) -> Iterable[str]:
    for row in table.rows:
        found = [
            f"{row.states[state]} {state}"
            for state in State
            if state is not State.FINISHED and row.states[state]
        ]
        if not row.reference and (found or not row.runs):
            yield f"{row_name(row)}: {', '.join(found) or 'no runs'}"


def _unreported(table: Table) -> Iterable[str]:
    for row in table.rows:
        for column in table.columns if not row.reference else ():
            entry = row.entries[column.key]
            short = 0 < entry.n < entry.planned and column.key not in COUNTED
            if entry.status == "not reported" or (short and row.states[State.FINISHED] == len(row.runs)):
                yield f"{row_name(row)}: {column.title} is reported by {entry.n} of {entry.planned} runs"
            if entry.mean is not None and not isfinite(entry.mean):
                yield f"{row_name(row)}: {column.title} is no number"


def _mixed(table: Table) -> Iterable[str]:
    found = table.provenance
    if len(found.commits) > 1:
        yield f"runs of {len(found.commits)} commits: {', '.join(map(short_commit, found.commits))}"
    if "no commit" in found.commits:
        yield "runs of code outside a checkout"
    if found.dirty:
        yield f"{found.dirty} runs of code with changes that were not committed"
    for package, versions in found.versions.items():
        if len(versions) > 1:
            yield f"runs of {len(versions)} versions of {package}: {', '.join(versions)}"
    yield from found.mixed_tests
    for setting, many in found.parts.items():
        yield f"{many} runs saw a part of their images: {setting}"
    if found.untold_tests:
        yield f"{found.untold_tests} runs do not say which images they were tested on"
    if any(row.data for row in table.rows):
        yield "rows with different pictures: " + "; ".join(
            dict.fromkeys(row.data for row in table.rows if row.data)
        )
