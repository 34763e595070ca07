"""From numbers to words: a table, or the long table's main columns, as a grid of strings.

Terminal and Markdown show the same grid, so they cannot disagree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from focal_lab.report.table.claims import overall
from focal_lab.report.table.long_table import LongRow, long_columns
from focal_lab.report.table.model import COUNTED, Answer, Comparison, Entry, Row, Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import COLUMNS, Column

# heading of a column of metrics' titles
METRIC = "metric"
NOTHING = "–"  # noqa: RUF001  (the dash that papers print)
# The settings that tell runs apart are shown, as long as there is room for them.
_MOST_SETTINGS = 3
_OPTION = "model.backbone_options."
# The first metric of each task.
_HEADLINES = frozenset(
    {column.task: column.key for column in reversed(COLUMNS.values()) if column.task}.values()
)


@dataclass(frozen=True)
class Strip:
    """One column of a grid: its heading, its cells, and what they are, for alignment and colour."""

    heading: str
    cells: tuple[str, ...]
    kind: Literal["label", "measured", "paper", "state", "verdict"]


# Kinds of strips that hold words; numbers are aligned at the right.
WORDS = frozenset({"label", "state", "verdict"})


@dataclass(frozen=True)
class Section:
    """A grid under a heading of its own."""

    heading: str
    strips: list[Strip]


def table_sections(table: Table) -> list[Section]:
    """What stands under the table: rows against their baselines, and the claim's parts."""
    sections = []
    if any(entry.compared for row in table.rows for entry in row.entries.values()):
        sections.append(_comparisons(table))
    if table.answers:
        sections.append(_answers(table))
    return sections


def table_grid(table: Table) -> list[Strip]:
    """The columns of a sweep's table: labels, each measurement with the paper's number to its right, runs."""
    rows = table.rows
    strips = [
        Strip(factor.replace("_", " "), tuple(row.labels.get(factor, NOTHING) for row in rows), "label")
        for factor in table.factors
    ]
    if any(row.data for row in rows):
        strips.append(Strip("data", tuple(row.data or NOTHING for row in rows), "label"))
    for column in table.columns:
        strips += _column_strips(column, [row.entries[column.key] for row in rows])
    return [*strips, Strip("Runs", tuple(runs_words(row) for row in rows), "state")]


def _column_strips(column: Column, entries: Sequence[Entry]) -> list[Strip]:
    """One to three strips: measured, published and the difference; without the task only the paper's."""
    words = tuple(NOTHING if entry.published is None else str(entry.published) for entry in entries)
    published = any(entry.published is not None for entry in entries)
    if published and all(entry.status == "not planned" for entry in entries):
        return [Strip(f"{column.title} paper", words, "paper")]
    measured = Strip(column.title, tuple(entry_words(entry, column) for entry in entries), "measured")
    if not published:
        return [measured]
    paper = Strip("paper", words, "paper")
    if column.task is None or all(entry.difference is None for entry in entries):
        return [measured, paper]
    return [measured, paper, Strip("diff", tuple(_signed(e.difference, column) for e in entries), "paper")]


def _signed(value: float | None, column: Column | None, half_width: float | None = None) -> str:
    """`+1.2`, or `+1.2 ± 0.8`."""
    if value is None:
        return NOTHING
    digits = column.digits if column else 1
    words = f"{round(value, digits) + 0.0:+.{digits}f}"
    return words if half_width is None else f"{words} ± {half_width:.{digits}f}"


def _comparisons(table: Table) -> Section:
    """A line for each row and metric: long, because a table as wide as that is read by nobody."""
    found = [
        (row, column, comparison)
        for column in table.columns
        for row in table.rows
        if (comparison := row.entries[column.key].compared) is not None
    ]
    baselines = {comparison.baseline for _, _, comparison in found}
    one = len(baselines) == 1
    strips = [
        Strip(
            factor.replace("_", " "), tuple(row.labels.get(factor, NOTHING) for row, _, _ in found), "label"
        )
        for factor in table.factors
    ]
    if not one:
        names = tuple(row_name(table.rows[comparison.baseline]) for _, _, comparison in found)
        strips.append(Strip("baseline", names, "label"))
    if len({column.key for _, column, _ in found}) > 1:
        strips.append(Strip(METRIC, tuple(column.title for _, column, _ in found), "label"))
        heading = "Against the baseline"
    else:
        heading = f"{found[0][1].title} against the baseline"
    differences = tuple(_signed(c.difference, column, c.half_width) for _, column, c in found)
    strips.append(Strip("difference", differences, "measured"))
    if any(comparison.published is not None for _, _, comparison in found):
        strips.append(Strip("paper", tuple(_signed(c.published, column) for _, column, c in found), "paper"))
    strips += [
        Strip("n", tuple(str(comparison.n) for _, _, comparison in found), "measured"),
        Strip("p", tuple(_p_words(comparison) for _, _, comparison in found), "measured"),
        Strip("verdict", tuple(comparison.verdict for _, _, comparison in found), "verdict"),
    ]
    where = f" {row_name(table.rows[baselines.pop()])}" if one else ""
    return Section(f"{heading}{where}", strips)


def _p_words(comparison: Comparison) -> str:
    if comparison.p_holm is None:
        return NOTHING
    return "< 0.001" if comparison.p_holm < 0.001 else f"{comparison.p_holm:.3f}"


def _answers(table: Table) -> Section:
    titles = {column.key: column for column in COLUMNS.values()}
    answers = table.answers
    strips = [Strip("comparison", tuple(answer.text for answer in answers), "label")]
    differences = tuple(_signed(a.difference, titles[a.metric], a.half_width) for a in answers)
    strips.append(Strip("margin", differences, "measured"))
    if any(answer.published is not None for answer in answers):
        strips.append(Strip("paper", tuple(_signed(a.published, titles[a.metric]) for a in answers), "paper"))
    strips += [
        Strip("n", tuple(str(answer.n) for answer in answers), "measured"),
        Strip("probability", tuple(probability_words(answer.probability) for answer in answers), "measured"),
        Strip("verdict", tuple(answer.verdict for answer in answers), "verdict"),
    ]
    return Section(f"Does the claim hold? {claim_words(answers)}", strips)


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
    """`61 %`; never 0 or 100, which no number of seeds shows."""
    if probability is None:
        return NOTHING
    if probability < 0.01:
        return "< 1 %"
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def row_name(row: Row) -> str:
    """`Focal-Tiny / 14`."""
    return " / ".join(row.labels.values())


def entry_words(entry: Entry, column: Column) -> str:
    """`87.4 ± 0.6`, `87.4 (n=1)` where more seeds were planned, or why there is no number.

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
    """`3/3`, or `1/3: 1 failed, 1 missing`: finished of planned runs, and what became of the others."""
    if row.reference:
        return "paper only"
    words = f"{row.states[State.FINISHED]}/{len(row.runs)}"
    if row.same_as is not None:
        words += " shared"
    rest = [f"{row.states[state]} {state}" for state in State if state is not State.FINISHED]
    others = ", ".join(part for part in rest if not part.startswith("0 "))
    return f"{words}: {others}" if others else words


def long_grid(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> list[Strip]:
    """The main columns of the long table: which run, and what came out. All of them are in the CSV."""
    found = long_columns(rows, labels)
    metrics = [key for key in found if key in _HEADLINES]
    settings = [] if labels else _telling_settings(rows)
    shown = ["run", *labels, *settings, "task", "seed", "state", *metrics, "params", "gmacs", "train_seconds"]
    return [_long_strip(key, rows, is_label=key in labels) for key in shown]


def _telling_settings(rows: Sequence[LongRow]) -> list[str]:
    """The backbone, and what else differs between the runs that say it, its options first."""
    known = [row for row in rows if row["state"] == State.FINISHED]
    keys = dict.fromkeys(key for row in known for key in row if key.startswith("model."))
    differing = [key for key in keys if len({repr(row.get(key)) for row in known}) > 1]
    backbone = [key for key in keys if key == "model.backbone"]
    options = [key for key in differing if key.startswith(_OPTION)]
    return list(dict.fromkeys(backbone + options + differing))[:_MOST_SETTINGS]


def _long_strip(key: str, rows: Iterable[LongRow], *, is_label: bool) -> Strip:
    column = None if is_label else COLUMNS.get(key)
    heading = column.title if column else key.removeprefix(_OPTION).removeprefix("model.").replace("_", " ")
    cells = tuple(_long_words(row.get(key), column) for row in rows)
    return Strip(heading, cells, "measured" if column else "state" if key == "state" else "label")


def _long_words(value: Any, column: Column | None) -> str:
    if value is None:
        return NOTHING
    return f"{value * column.scale:.{column.digits}f}" if column else str(value)
