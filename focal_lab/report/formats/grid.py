"""A table, or the main columns of the long table, as a grid of strings.

Text, Markdown, LaTeX and HTML show this grid, so they cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from focal_lab.report.table.claims import overall
from focal_lab.report.table.records import (
    NOTHING,
    Answer,
    Comparison,
    Entry,
    Row,
    Table,
    entry_words,
    runs_words,
    shown_label,
    shown_name,
)
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import COLUMNS, Column

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["label", "measured", "paper", "state", "verdict", "folder"]
# Tones of words, and signs beside them, so that nothing depends on colours.
_TONES = {
    "better": ("good", "▲"),
    **dict.fromkeys(("supported", "finished"), ("good", "✓")),
    "worse": ("bad", "▼"),
    **dict.fromkeys(("contradicted", "failed", "corrupt"), ("bad", "✕")),
    **dict.fromkeys(("missing", "pruned", "not reported"), ("warn", "○")),
    **dict.fromkeys(("too few seeds", "undecided", "other test set"), ("warn", "○")),
    **dict.fromkeys(("within noise", "same runs", "other data"), ("even", "≈")),
}
_SEVERE = ("failed", "corrupt", "missing", "pruned")
# Heading of a column of metrics' titles.
METRIC = "metric"
# The long table shows the settings in which runs differ, up to as many as fit.
_MOST_SETTINGS = 3
_OPTION = "model.backbone_options."
# The first metric of each task.
_HEADLINES = frozenset(
    {column.task: column.key for column in reversed(COLUMNS.values()) if column.task}.values()
)


@dataclass(frozen=True)
class Strip:
    """One column of a grid.

    Attributes:
        kind: decides alignment and colour.
        numbers: those behind the cells, None where a cell has none; empty for words.
        task: whose metric it is; None if it is not a metric.
    """

    heading: str
    cells: tuple[str, ...]
    kind: Kind
    numbers: tuple[float | None, ...] = ()
    task: str | None = None


# Kinds of strips that hold words; numbers are aligned at the right.
WORDS = frozenset({"label", "state", "verdict"})


@dataclass(frozen=True)
class Section:
    """A grid below the table, under a heading of its own; `name` is `baseline` or `claim`."""

    name: str
    heading: str
    strips: list[Strip]


def table_grid(table: Table) -> list[Strip]:
    """The columns of a sweep's table: labels, each measurement and to its right the paper's number, runs."""
    strips = _label_strips(table.factors, table.rows)
    if any(row.data for row in table.rows):
        strips.append(_strip("data", "label", [row.data or None for row in table.rows]))
    for column in table.columns:
        strips += _column_strips(column, [row.entries[column.key] for row in table.rows])
    finished = tuple(float(row.states[State.FINISHED]) for row in table.rows)
    return [*strips, Strip("Runs", tuple(map(runs_words, table.rows)), "state", finished)]


def table_sections(table: Table) -> list[Section]:
    """What follows the table: rows against their baselines, and the parts of the claim."""
    return [*_comparisons(table), *([_claim(table.answers)] if table.answers else [])]


def _label_strips(factors: Sequence[str], rows: Sequence[Row]) -> list[Strip]:
    return [
        _strip(factor.replace("_", " "), "label", [shown_label(row, factor) for row in rows])
        for factor in factors
    ]


def _column_strips(column: Column, entries: Sequence[Entry]) -> list[Strip]:
    """Measured, published and their difference; only the published number if the task was not run."""
    shown = tuple(entry_words(entry, column) for entry in entries)
    measured = Strip(column.title, shown, "measured", tuple(entry.mean for entry in entries))
    paper = _strip("paper", "paper", [entry.published for entry in entries])
    difference = _signed_strip("diff", "paper", [(column, entry.difference, None) for entry in entries])
    if all(entry.published is None for entry in entries):
        strips = [measured]
    elif all(words == NOTHING for words in shown):
        strips = [replace(paper, heading=f"{column.title} paper")]
    elif column.task is None or all(entry.difference is None for entry in entries):
        strips = [measured, paper]
    else:
        strips = [measured, paper, difference]
    return [replace(strip, task=column.task) for strip in strips]


def _comparisons(table: Table) -> list[Section]:
    """A line for each row and metric: a table with so many columns more would be too wide to read."""
    found = [
        (column, row, compared)
        for column in table.columns
        for row in table.rows
        if (compared := row.entries[column.key].compared) is not None
    ]
    if not found:
        return []
    titles = [column.title for column, _, _ in found]
    strips = _label_strips(table.factors, [row for _, row, _ in found])
    heading = f"{titles[0]} against the baseline" if len(set(titles)) == 1 else "Against the baseline"
    baselines = [shown_name(table.rows[compared.baseline]) for _, _, compared in found]
    if len(set(baselines)) == 1:
        heading += f" {baselines[0]}"
    else:
        strips.append(_strip("baseline", "label", baselines))
    if len(set(titles)) > 1:
        strips.append(_strip(METRIC, "label", titles))
    p_values = tuple(compared.p_holm for _, _, compared in found)
    p_strip = Strip("p", tuple(map(_p_words, p_values)), "measured", p_values)
    tests = [(column, compared) for column, _, compared in found]
    return [Section("baseline", heading, strips + _test_strips(tests, "difference", p_strip))]


def _p_words(p: float | None) -> str:
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _claim(answers: Sequence[Answer]) -> Section:
    probabilities = tuple(answer.probability for answer in answers)
    strip = Strip("probability", tuple(map(probability_words, probabilities)), "measured", probabilities)
    tests = [(COLUMNS[answer.metric], answer) for answer in answers]
    strips = [
        _strip("comparison", "label", [answer.text for answer in answers]),
        *_test_strips(tests, "margin", strip),
    ]
    return Section("claim", f"Does the claim hold? {claim_words(answers)}", strips)


def _test_strips(
    tests: Sequence[tuple[Column, Comparison | Answer]], heading: str, probability: Strip
) -> list[Strip]:
    """A test's difference, that of the published numbers, number of seeds, probability and verdict."""
    measured = [(column, test.difference, test.half_width) for column, test in tests]
    paper = [(column, test.published, None) for column, test in tests]
    return [
        _signed_strip(heading, "measured", measured),
        *(
            [_signed_strip("paper", "paper", paper)]
            if any(test.published is not None for _, test in tests)
            else []
        ),
        _strip("n", "measured", [test.n for _, test in tests]),
        probability,
        _strip("verdict", "verdict", [test.verdict for _, test in tests]),
    ]


def tone(text: str) -> tuple[str, str]:
    """Tone and sign of a text, or of the most severe word in it: good, bad, warn, even, or empty."""
    return _TONES.get(next((word for word in _SEVERE if word in text), text), ("", ""))


def claim_words(answers: Sequence[Answer]) -> str:
    """`Undecided: it holds with a probability of at most 61 %.`"""
    verdict, probability = overall(answers)
    if probability is None:
        few = "other parts have too few seeds" if verdict == "contradicted" else "too few seeds"
        return f"{verdict.capitalize()}: {few}."
    words = probability_words(probability)
    at_most = "at most " if len(answers) > 1 and not words.startswith("<") else ""
    return f"{verdict.capitalize()}: it holds with a probability of {at_most}{words}."


def probability_words(probability: float | None) -> str:
    """`61 %`; never 0 or 100, which no number of seeds can show."""
    if probability is None:
        return NOTHING
    if probability < 0.01:
        return "< 1 %"
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def long_grid(runs: "pd.DataFrame") -> list[Strip]:
    """The main columns of the long table: which run, and its results. The CSV has all of them."""
    labels = runs.attrs["labels"]
    metrics = [key for key in runs.columns if key in _HEADLINES and key not in labels]
    settings = [] if labels else _differing_settings(runs)
    costs = ["params", "gmacs", "train_seconds"]
    shown = ["run", *labels, *settings, "task", "seed", "state", *metrics, *costs]
    return [_long_strip(key, runs[key], None if key in labels else COLUMNS.get(key)) for key in shown]


def _differing_settings(runs: "pd.DataFrame") -> list[str]:
    """The backbone, and other settings in which finished runs differ, options of the backbone first."""
    known = runs[runs["state"] == State.FINISHED]
    keys = [key for key in runs.columns if key.startswith("model.")]
    differing = [key for key in keys if len(set(map(repr, known[key].tolist()))) > 1]
    backbone = [key for key in keys if key == "model.backbone"]
    options = [key for key in differing if key.startswith(_OPTION)]
    return list(dict.fromkeys(backbone + options + differing))[:_MOST_SETTINGS]


def _long_strip(key: str, values: "pd.Series[Any]", column: Column | None) -> Strip:
    known = [
        None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)
    ]
    if column is None:
        heading = key.removeprefix(_OPTION).removeprefix("model.").replace("_", " ")
        return _strip(heading, "state" if key == "state" else "label", known)
    return number_strip(column, known)


def number_strip(column: Column, numbers: Sequence[float | None]) -> Strip:
    """Numbers of single runs, as they are stored."""
    words = (NOTHING if n is None else f"{n * column.scale:.{column.digits}f}" for n in numbers)
    return Strip(column.title, tuple(words), "measured", tuple(numbers))


def _strip(heading: str, kind: Kind, values: Sequence[Any]) -> Strip:
    """Values as they are; None is a dash."""
    cells = tuple(NOTHING if value is None else str(value) for value in values)
    if kind == "label":
        return Strip(heading, cells, kind, as_numbers(cells))
    return Strip(heading, cells, kind, () if kind in WORDS else tuple(values))


def as_numbers(labels: Sequence[str]) -> tuple[float, ...]:
    """Labels by which a page sorts as numbers, if all of them are."""
    try:
        return tuple(float(label) for label in labels)
    except ValueError:
        return ()


def _signed_strip(
    heading: str, kind: Kind, differences: Sequence[tuple[Column, float | None, float | None]]
) -> Strip:
    """Differences such as `+1.2`, or `+1.2 ± 0.8`: column, number, half of the interval."""
    words = []
    for column, number, half_width in differences:
        spread = "" if half_width is None else f" ± {half_width:.{column.digits}f}"
        # adding 0.0 turns -0.0 into 0.0
        rounded = None if number is None else round(number, column.digits) + 0.0
        words.append(NOTHING if rounded is None else f"{rounded:+.{column.digits}f}{spread}")
    return Strip(heading, tuple(words), kind, tuple(number for _, number, _ in differences))
