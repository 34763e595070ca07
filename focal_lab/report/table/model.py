"""What a table is made of: plain data that every renderer and every statistic reads.

Numbers are in the unit of the column's heading.
"""

from dataclasses import dataclass, field
from typing import Literal

from focal_lab.report.table.statistics import Verdict
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import Column

# Equal for every seed of a cell: counted, not measured, so they have neither spread nor n.
COUNTED = frozenset({"params", "gmacs"})
ClaimVerdict = Literal["supported", "contradicted", "undecided"]
Status = Literal["measured", "failed", "pruned", "corrupt", "missing", "not reported", "not planned"]


@dataclass(frozen=True)
class Comparison:
    """A number against the one of the row's baseline, by the seeds that both have.

    Attributes:
        baseline: index of the row that it is compared with.
        n: seeds that both have.
        difference: mean of row minus baseline; None without a seed.
        half_width: of its 95 % t-interval; None for fewer than two seeds.
        p: of the paired t-test, two-sided; None for fewer than two seeds.
        p_holm: corrected for all comparisons of this column (Holm).
        published: the same difference between the paper's numbers; None where it lacks one.
        verdict: in words; by `p_holm` below 0.05.
    """

    baseline: int
    n: int
    difference: float | None
    half_width: float | None
    p: float | None
    p_holm: float | None
    published: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Entry:
    """One number of the table.

    Attributes:
        mean: over the seeds that have a value; None when none has.
        sd: sample standard deviation over those seeds; None for fewer than two, and for what is counted.
        half_width: of the 95 % t-interval of the mean; None where `sd` is.
        n: how many seeds have a value.
        planned: how many were planned; 0 when the sweep does not run the column's task.
        published: the paper's number; None where it has none.
        status: measured, or why there is no mean: the gravest thing that happened to the planned runs.
        values: seed -> value, what mean and sd are made of.
        compared: with the row's baseline; None in the baseline's own row, and for what is no metric.
    """

    mean: float | None
    sd: float | None
    half_width: float | None
    n: int
    planned: int
    published: float | None
    status: Status
    values: dict[int, float]
    compared: Comparison | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published; None where one of them is missing."""
        return None if self.mean is None or self.published is None else self.mean - self.published


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
        baseline: index of the row that this one is compared with; None for the baseline itself.
        data: the row's pictures, where not all rows have the same: `img_size 28-28`; else empty.
        reference: a row of the paper that the sweep does not train; it has no runs.
    """

    labels: dict[str, str]
    entries: dict[str, Entry]
    states: dict[str, int]
    runs: tuple[PlannedRun, ...]
    in_paper: bool
    same_as: int | None
    baseline: int | None = None
    data: str = ""
    reference: bool = False


@dataclass(frozen=True)
class Answer:
    """What the measured numbers say to one part of a claim.

    Attributes:
        text: the comparison, as in the sweep file.
        n: seeds that all its cells have.
        difference: how much more the left side is than the right one is asked to be, in the metric's unit and
            in the sense of the claim; None without a seed.
        half_width: of its 95 % t-interval; None for fewer than two seeds.
        probability: that it holds, given these seeds; None for fewer than two.
        verdict: supported from 95 %, contradicted below 5 %.
        published: the same difference between the paper's numbers; None where it lacks one.
    """

    text: str
    metric: str
    n: int
    difference: float | None
    half_width: float | None
    probability: float | None
    verdict: ClaimVerdict
    published: float | None


@dataclass(frozen=True)
class Provenance:
    """Where the finished runs of a table come from: what -> how many runs.

    Attributes:
        commits: of the code; None is code outside a checkout.
        dirty: runs of code with changes that were not committed.
        versions: package -> version -> runs.
        hardware: what they were trained on.
        counted_at: task -> size of the inputs whose GMACs are counted, `800 x 1280 px` -> what says so.
        last_epoch: task -> runs tested after the last epoch, because validation images are reported.
        mixed_tests: a sentence on each group of runs that was not tested on what the others were.
        parts: setting, such as `trainer.limit_test_batches=2` -> runs that it let see a part of their images.
        untold_tests: how many of several runs do not say what they were tested on.
    """

    commits: dict[str, int]
    dirty: int
    versions: dict[str, dict[str, int]]
    hardware: dict[str, int]
    last_epoch: dict[str, int] = field(default_factory=dict)
    mixed_tests: tuple[str, ...] = ()
    untold_tests: int = 0
    counted_at: dict[str, dict[str, str]] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """What a report says about a sweep.

    Attributes:
        name: the sweep file's stem.
        suite: what the runs were trained on.
        cite, setting: the published table and what it was measured on; None without one.
        tasks: whose metrics it shows.
        costs_task: whose runs give parameters, times and memory.
        command: trains what is missing.
        notes: sentences that belong under the table.
        order: what the order of a search's rows means; None for a design, whose order is the paper's.
        answers: what the numbers say to each part of the claim.
    """

    name: str
    title: str
    claim: str | None
    suite: str
    command: str
    cite: str | None
    setting: str | None
    tasks: tuple[str, ...]
    costs_task: str
    seeds: tuple[int, ...]
    factors: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    provenance: Provenance
    order: str | None = None
    answers: tuple[Answer, ...] = ()
