"""The list of runs as text: a table for each set of sweeps that needs its runs."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from focal_lab.sweep.housekeeping.inventory import RUNNING, RunEntry
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.utils.text_table import TextColumn, aligned
from focal_lab.utils.units import age, many, size

_STYLES = {State.FAILED: "31", State.CORRUPT: "31", RUNNING: "32", State.MISSING: "33"}


def runs_text(
    entries: Sequence[RunEntry], width: int | None, *, with_reasons: bool = False, color: bool = False
) -> str:
    """The runs under the sweeps that need them, and their totals.

    Args:
        width: fold cells and reasons to fit this; None: fold nothing.
        with_reasons: why there is no result, in place of state and size.
        color: use ANSI escape codes.
    """
    groups: dict[tuple[str, ...], list[RunEntry]] = defaultdict(list)
    for entry in sorted(entries, key=_place):
        groups[entry.sweeps].append(entry)
    parts = []
    for sweeps in sorted(groups, key=lambda sweeps: (not sweeps, sweeps)):
        heading = f"Needed by {' and '.join(sweeps)}" if sweeps else "Needed by no sweep"
        columns = _columns(groups[sweeps], with_reasons=with_reasons)
        parts.append(f"{heading}\n{aligned(columns, width, color=color)}\n")
    return "".join([*parts, _total(entries), "\n"])


def _columns(entries: Sequence[RunEntry], *, with_reasons: bool) -> list[TextColumn]:
    run = TextColumn("Run", [entry.run for entry in entries])
    state = TextColumn("State", [entry.state for entry in entries], style=lambda cell: _STYLES.get(cell, ""))
    which = [
        TextColumn("Task", [entry.task or "" for entry in entries]),
        TextColumn("Cell", [", ".join(entry.labels.values()) for entry in entries], folds=True),
        TextColumn("Seed", ["" if entry.seed is None else str(entry.seed) for entry in entries], right=True),
        TextColumn("Age", [age(entry.age) for entry in entries], right=True),
    ]
    if with_reasons:
        return [run, *which, TextColumn("Reason", [entry.reason or "" for entry in entries], folds=True)]
    return [run, state, *which, TextColumn("Size", [size(entry.size) for entry in entries], right=True)]


def _place(entry: RunEntry) -> tuple[str, tuple[str, ...], int, str]:
    """Seeds of a cell together."""
    return entry.task or "", tuple(entry.labels.values()), entry.seed or 0, entry.run


def _total(entries: Sequence[RunEntry]) -> str:
    counts = Counter(entry.state for entry in entries)
    states = ", ".join(f"{counts[state]} {state}" for state in [RUNNING, *State] if counts[state])
    return f"{many(len(entries), 'run')}{states and f': {states}'}, {size(sum(e.size for e in entries))}"
