"""A sweep's table: typed records with every statistic, and the same as a DataFrame.

Numbers are in the unit of the column's heading.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from focal_lab.sweep.plan.confounds import Confound
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    import pandas as pd

# Equal for every seed of a cell: counted, not measured, so they have neither spread nor n.
COUNTED = frozenset({"params", "gmacs"})
NOTHING = "–"  # noqa: RUF001  (the dash that papers print)
# Columns of `Table.frame` -> attributes of an Entry, and of a Comparison.
_NUMBERS = {
    "mean": "mean",
    "sd": "sd",
    "ci95": "half_width",
    "n": "n",
    "paper": "published",
    "diff": "difference",
}
_COMPARED = {"delta": "difference", "delta_ci95": "half_width", "delta_paper": "published"}
_COMPARED |= {
    name: name
    for name in (
        *("p", "p_holm", "p_equivalent", "margin", "detectable", "seeds_needed", "exaggeration", "verdict"),
    )
}
Status = Literal["measured", "failed", "pruned", "corrupt", "missing", "not reported", "not planned"]


@dataclass(frozen=True)
class Outcome:
    """A difference between cells, tested by the `n` seeds that all of them have.

    Attributes:
        difference, half_width: the mean, and half of its 95 % interval over seeds and test images.
        sd: standard deviation of the difference between seeds; None for fewer than two.
        image_error: standard error of the difference from the test images; 0 if unknown.
        images: independent test images, or sources of test images, in the interval; 0: seeds alone.
        p: two-sided p-value of no difference; of `~` of none beyond the margin, of `within` of the margin.
        p_holm: corrected for all comparisons of the report (Holm).
        p_equivalent: corrected p-value of a difference of at least `margin` (two one-sided tests).
        margin: the largest difference that counts as none.
        detectable: the true difference that these seeds find with 80 %.
        seeds_needed: how many find a difference of `margin` with 80 %; None if 1,000 do not.
        exaggeration: how many times too large a true difference of `margin` would be reported on average,
            where it is found at all; None of parts of a claim that have a margin.
        published: the difference between the published numbers.
        chance: the probability that more seeds decide it, up to the largest number of a sequential analysis;
            None if it is decided, or if the number of seeds was fixed.
        rows: indices of the rows whose seeds it needs.
        verdict: of a row: better, worse, equivalent within the margin, inconclusive, or why it is not tested.
    """

    n: int
    difference: float | None
    half_width: float | None
    sd: float | None
    image_error: float
    images: int
    p: float | None
    p_holm: float | None
    p_equivalent: float | None
    margin: float
    detectable: float | None
    seeds_needed: int | None
    exaggeration: float | None
    published: float | None
    chance: float | None
    rows: tuple[int, ...]
    verdict: str


@dataclass(frozen=True)
class Comparison(Outcome):
    """A metric against the one of the row's baseline; `baseline` is the index of that row."""

    baseline: int


@dataclass(frozen=True)
class Answer(Outcome):
    """A part of a claim; its difference is by how much the part holds.

    Attributes:
        text: as in the sweep file.
        metric: key of the column.
        verdict: supported, contradicted, inconclusive, or why it is not tested; equivalent within the margin
            if the row of this comparison is, which neither supports `>` nor contradicts it.
    """

    text: str
    metric: str


@dataclass(frozen=True)
class Effect:
    """What the factors of a full grid do to the main metric of a task: estimated, not tested.

    Attributes:
        metric: key of the column.
        kind: main effect (a level against the reference, averaged over the other factors), interaction (the
            difference between two such differences), share (the factor's Shapley value), or whole difference
            (of the opposite cell and the reference cell, which the shares add up to).
        levels, references: factor -> level, and the level that it is compared with.
        n: seeds that all cells have.
        difference, half_width, images: as in an `Outcome`.
        percent: of the whole difference; None where that may be 0, and for main effects and interactions.
    """

    metric: str
    kind: str
    levels: dict[str, str]
    references: dict[str, str]
    n: int
    difference: float
    half_width: float | None
    images: int
    percent: float | None = None


@dataclass(frozen=True)
class Source:
    """How much one source changes the main metric of a task between runs of one cell.

    Attributes:
        metric: key of the column.
        labels: the cell's, factor -> label, without those of seeds; empty if only seeds vary.
        source: the setting whose seed varies, `seed` (of the run), `rest`, or `test images`.
        runs: that the estimate is from.
        sd, sd_low, sd_high: standard deviation and its 95 % interval, in the metric's unit.
        percent, percent_low, percent_high: of the variance between runs, and its 95 % interval; None for test
            images, which change all runs alike, and if all runs are equal.
    """

    metric: str
    labels: dict[str, str]
    source: str
    runs: int
    sd: float
    sd_low: float
    sd_high: float
    percent: float | None = None
    percent_low: float | None = None
    percent_high: float | None = None


@dataclass(frozen=True)
class Entry:
    """One number of the table.

    Attributes:
        mean: over the `n` seeds that have a value.
        sd: sample standard deviation; None for fewer than two seeds, and for what is counted.
        half_width: half of the 95 % interval of the mean, over seeds and test images; None where `sd` is.
        images: independent test images, or sources of test images, in the interval; 0: seeds alone.
        planned: seeds that were planned; 0 if the sweep does not run the column's task.
        published: the paper's number.
        status: measured, or the most severe reason why no run has a value.
        values: seed -> value.
        unlike_paper: which of data and network are not the paper's; then there is no `difference`.
        compared: with the row's baseline; None for baselines and for columns that are not metrics.
        successes: how many of the `n` values reach the sweep's threshold; None if it has none.
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
    unlike_paper: tuple[str, ...] = ()
    images: int = 0
    successes: int | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published; None if one is missing, or data or network are not the paper's."""
        return None if self.mean is None or self.comparable is None else self.mean - self.comparable

    @property
    def comparable(self) -> float | None:
        """The paper's number, where differences may be formed with it; else None."""
        return None if self.unlike_paper else self.published


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row and its outcome.

    Attributes:
        reason, last_line: why it did not finish.
        counts: whether the row's numbers are of it; False for settings that tuning did not choose.
    """

    run: str
    task: str
    seed: int
    state: State
    reason: str | None
    last_line: str | None
    counts: bool = True


@dataclass(frozen=True)
class Row:
    """One cell of the plan, or a row of the published table.

    Attributes:
        labels: factor -> level label, as the sweep file has it.
        entries: column key -> number.
        states: state -> how many of the row's runs are in it; has all states.
        runs: in the plan's order.
        in_paper: whether the published table has this row.
        same_as: index of an earlier row with the same effective configuration, hence the same runs.
        baseline: index of the row that this one is compared with; None for baselines.
        data: what is particular about the row's data, such as `img_size 28-28`; empty if all rows agree.
        reference: a published row that the sweep does not train; it has no runs.
        network: name of the backbone that is trained.
        variant: how it differs from the paper's network, such as `micro`; empty if it does not.
        shown: the labels as they are printed, such as `Focal-Tiny (micro)`; empty if they are `labels`.
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
    network: str = ""
    variant: str = ""
    shown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where the finished runs of a table come from: value -> number of runs.

    Attributes:
        commits: of the code; "no commit" is code outside a checkout.
        dirty: runs of code with uncommitted changes.
        versions: package -> version -> runs.
        last_epoch: task -> runs tested after the last epoch, because validation images are reported.
        mixed_tests: a sentence for each group of runs that was tested on something else than the others.
        untold_tests: runs that do not say what they were tested on; 0 for a single run.
        counted_at: task -> input size at which GMACs are counted, `800 x 1280 px` -> where that comes from.
        parts: setting that restricts evaluation to a part of the images,
            such as `trainer.limit_test_batches=2` -> runs.
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
    """A sweep's table.

    Attributes:
        name: the sweep file's stem.
        command: trains what is missing.
        cite, setting: the published table and what it was measured on; None without one.
        tasks: whose metrics it shows.
        costs_task: whose runs give parameters, times and memory.
        notes: sentences below the table.
        order: how the rows of a search are sorted; None for a design, whose order is the plan's.
        answers: one for each part of the claim.
        comparisons: how many tests the p-values are corrected for.
        confounds: factors whose levels differ in several settings.
        effects: of the factors, if the rows are all combinations of several factors' levels.
        sources: of variance, of a sweep over seeds of parts of a run.
        max_seeds: the largest number of seeds of a sequential analysis; None if their number was fixed.
        looked_at: smaller numbers of seeds of which there was a table before, for which nothing is corrected.
        asked: how many there will be when all runs have finished.
        success: column key -> the value from which on a run has succeeded.
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
    comparisons: int = 0
    confounds: tuple[Confound, ...] = ()
    effects: tuple[Effect, ...] = ()
    sources: tuple[Source, ...] = ()
    max_seeds: int | None = None
    looked_at: tuple[int, ...] = ()
    asked: int = 0
    success: dict[str, float] = field(default_factory=dict)

    @property
    def full_title(self) -> str:
        """`Impact of the window size (the paper's table 8)`."""
        return f"{self.title} (the paper's {self.cite})" if self.cite else self.title

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """The table as a DataFrame; CSV and Parquet are parts of it.

        The index has the labels, one level per factor. Columns have two levels: the column's key, and `shown`
        (what reports print), `mean`, `sd`, `ci95` (half of the 95 % interval), `n`, `paper` or `diff` (mean
        minus paper, if data and network are the paper's). Metrics also have the comparison with the row's
        baseline: `baseline`, `delta`, `delta_ci95`, `delta_paper`, the attributes of an `Outcome` from `p` to
        `verdict`, and the number of `pairs`. Columns without a second level are `network`, `variant`, `data`,
        the counts of runs, and the same in words as `runs`. `attrs` has the units, notes, claims,
        confounds, effects, sources of variance and provenance.
        """
        import pandas as pd

        cells: dict[tuple[str, str], list[Any]] = {}
        for column in self.columns:
            entries = [row.entries[column.key] for row in self.rows]
            cells[column.key, "shown"] = [entry_words(entry, column) for entry in entries]
            for name, attribute in _NUMBERS.items():
                cells[column.key, name] = [getattr(entry, attribute) for entry in entries]
            if column.task is None:
                continue
            compared = [entry.compared for entry in entries]
            names = [row_name(self.rows[found.baseline]) if found else None for found in compared]
            cells[column.key, "baseline"] = names
            for name, attribute in _COMPARED.items():
                cells[column.key, name] = [getattr(found, attribute, None) for found in compared]
            cells[column.key, "pairs"] = [found.n if found else 0 for found in compared]
        cells["network", ""] = [row.network or None for row in self.rows]
        cells["variant", ""] = [row.variant or None for row in self.rows]
        cells["data", ""] = [row.data or None for row in self.rows]
        cells["planned", ""] = [len(row.runs) for row in self.rows]
        for state in State:
            cells[str(state), ""] = [row.states[state] for row in self.rows]
        cells["runs", ""] = [runs_words(row) for row in self.rows]
        frame = pd.DataFrame(cells)
        labels = [[row.labels.get(factor) for row in self.rows] for factor in self.factors]
        if len(labels) == 1:
            frame.index = pd.Index(labels[0], name=self.factors[0])
        elif labels:
            frame.index = pd.MultiIndex.from_arrays(labels, names=self.factors)
        units = {column.key: column.unit for column in self.columns}
        frame.attrs = {"title": self.full_title, "claim": self.claim, "suite": self.suite, "units": units}
        frame.attrs |= {"notes": list(self.notes), "claims": [asdict(answer) for answer in self.answers]}
        frame.attrs["confounds"] = [asdict(confound) for confound in self.confounds]
        frame.attrs["effects"] = [asdict(effect) for effect in self.effects]
        frame.attrs["sources"] = [asdict(source) for source in self.sources]
        frame.attrs["provenance"] = asdict(self.provenance)
        return frame


def compared_numbers(found: Outcome) -> dict[str, Any]:
    """A comparison as columns of `Table.frame` without the metric: `delta`, `delta_ci95`, `p` and so on."""
    return {name: getattr(found, attribute) for name, attribute in _COMPARED.items()}


def row_name(row: Row) -> str:
    """`Focal-Tiny / 14`: the labels of the sweep file."""
    return " / ".join(row.labels.values())


def shown_name(row: Row) -> str:
    """`Focal-Tiny (micro) / 14`: for readers, who must not take one network for another."""
    return " / ".join(shown_label(row, factor) or "" for factor in row.labels)


def shown_label(row: Row, factor: str) -> str | None:
    """`Focal-Tiny (micro)`; None if the row has no such label."""
    return row.shown.get(factor, row.labels.get(factor))


def entry_words(entry: Entry, column: Column) -> str:
    """`87.4 ± 0.6`, `87.4 (n=1)` if more seeds were planned, or why there is no number.

    What follows ± is half of the 95 % interval.
    """
    if entry.mean is None:
        return NOTHING if entry.status == "not planned" else entry.status
    words = f"{entry.mean:.{column.digits}f}"
    if entry.half_width is not None:
        words += f" ± {entry.half_width:.{column.digits}f}"
    partial = entry.n < entry.planned and column.key not in COUNTED
    return f"{words} (n={entry.n})" if partial else words


def runs_words(row: Row) -> str:
    """`3/3`, or `1/3: 1 failed, 1 missing`: finished of planned runs, and the states of the others."""
    if row.reference:
        return "paper only"
    words = f"{row.states[State.FINISHED]}/{len(row.runs)}"
    if row.same_as is not None:
        words += " shared"
    others = ", ".join(unfinished(row))
    return f"{words}: {others}" if others else words


def unfinished(row: Row) -> list[str]:
    """`["1 failed", "1 missing"]`."""
    states = [state for state in State if state is not State.FINISHED and row.states[state]]
    return [f"{row.states[state]} {state}" for state in states]
