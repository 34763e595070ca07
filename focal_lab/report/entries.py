"""What a table is made of: plain data that every renderer and every statistic reads.

Numbers are in the unit of the column's heading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Literal

from focal_lab.ablation.columns import Column
from focal_lab.ablation.outcomes import State

# Equal for every seed of a cell: counted, not measured, so they have neither spread nor n.
COUNTED = frozenset({"params", "gmacs"})
Status = Literal["measured", "failed", "pruned", "corrupt", "missing", "not reported", "not planned"]


@dataclass(frozen=True)
class Entry:
    """One number of the table.

    Attributes:
        mean: over the seeds that have a value; None when none has.
        sd: sample standard deviation over those seeds; None for fewer than two, and for what is counted.
        n: how many seeds have a value.
        planned: how many were planned; 0 when the sweep does not run the column's task.
        published: the paper's number; None where it has none.
        status: measured, or why there is no mean: the gravest thing that happened to the planned runs.
        values: seed -> value, what mean and sd are made of.
    """

    mean: float | None
    sd: float | None
    n: int
    planned: int
    published: float | None
    status: Status
    values: dict[int, float]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row and what became of it; `reason` and `last_line` say why it did not finish."""

    run: str
    task: str
    seed: int
    state: State
    reason: str | None
    last_line: str | None


@dataclass(frozen=True)
class Row:
    """One cell of the plan.

    Attributes:
        labels: factor -> level label.
        entries: column key -> number.
        states: state -> how many of the row's runs are in it; all four states are there.
        runs: the row's runs, in the plan's order.
        in_paper: whether the published table has this row.
        same_as: index of the earlier row that the very same runs belong to, because the two cells have the
            same effective configuration; None otherwise.
    """

    labels: dict[str, str]
    entries: dict[str, Entry]
    states: dict[str, int]
    runs: tuple[PlannedRun, ...]
    in_paper: bool
    same_as: int | None


@dataclass(frozen=True)
class Table:
    """What a report says about a sweep.

    Attributes:
        name: the sweep file's stem.
        suite: what the runs were trained on.
        cite, setting: the published table and what it was measured on; None without one.
        tasks: the first one's runs give parameters, times and memory.
        command: trains what is missing.
        notes: sentences that belong under the table.
        order: what the order of a search's rows means; None for a design, whose order is the paper's.
    """

    name: str
    title: str
    claim: str | None
    suite: str
    command: str
    cite: str | None
    setting: str | None
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    order: str | None = None


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (divided by n - 1); None where there are too few values."""
    if not values:
        return None, None
    mean = fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
