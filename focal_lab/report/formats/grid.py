"""A table, or the main columns of the long table, as a grid of strings.

Text, Markdown, LaTeX and HTML show this grid, so they cannot disagree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from focal_lab.report.table.claims import overall
from focal_lab.report.table.records import NOTHING, Answer, Table
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import COLUMNS, Column

if TYPE_CHECKING:
    import pandas as pd

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
        numbers: those behind the cells, None where a cell has none; empty for labels and words.
        task: whose metric it is; None if it is not a metric.
    """

    heading: str
    cells: tuple[str, ...]
    kind: Literal["label", "measured", "paper", "state", "verdict"]
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
    frame = table.frame
    strips = _label_strips(frame)
    if frame["data"].notna().any():
        strips.append(Strip("data", _words(frame["data"]), "label"))
    for column in table.columns:
        strips += _column_strips(column, frame[[column.key]].droplevel(0, axis="columns"))
    return [*strips, Strip("Runs", _words(frame["runs"]), "state", _numbers(frame["finished"].astype(float)))]


def table_sections(table: Table) -> list[Section]:
    """What follows the table: rows against their baselines, and the parts of the claim."""
    return [*_comparisons(table), *([_claim(table.answers)] if table.answers else [])]


def _label_strips(frame: "pd.DataFrame") -> list[Strip]:
    return [
        Strip(str(name).replace("_", " "), _words(frame.index.get_level_values(level)), "label")
        for level, name in enumerate(frame.index.names)
        if name is not None
    ]


def _column_strips(column: Column, part: "pd.DataFrame") -> list[Strip]:
    """Measured, published and their difference; only the published number if the task was not run."""
    paper = Strip("paper", _words(part["paper"]), "paper", _numbers(part["paper"]))
    measured = Strip(column.title, _words(part["shown"]), "measured", _numbers(part["mean"]))
    difference = _signed_strip("diff", "paper", part["diff"], [column] * len(part))
    if part["paper"].isna().all():
        strips = [measured]
    elif (part["shown"] == NOTHING).all():
        strips = [replace(paper, heading=f"{column.title} paper")]
    elif column.task is None or part["diff"].isna().all():
        strips = [measured, paper]
    else:
        strips = [measured, paper, difference]
    return [replace(strip, task=column.task) for strip in strips]


def _comparisons(table: Table) -> list[Section]:
    """A line for each row and metric: a table with so many columns more would be too wide to read."""
    import pandas as pd

    parts = [table.frame[column.key].assign(metric=column.key) for column in table.columns if column.task]
    found = pd.concat([part.dropna(subset="verdict") for part in parts]) if parts else table.frame[:0]
    if found.empty:
        return []
    titles = [COLUMNS[key].title for key in found["metric"]]
    strips = _label_strips(found)
    heading = f"{titles[0]} against the baseline" if len(set(titles)) == 1 else "Against the baseline"
    baselines = found["baseline"].unique()
    if len(baselines) == 1:
        heading += f" {baselines[0]}"
    else:
        strips.append(Strip("baseline", _words(found["baseline"]), "label"))
    if len(set(titles)) > 1:
        strips.append(Strip(METRIC, tuple(titles), "label"))
    names = {"delta": "difference", "delta_ci95": "half_width", "delta_paper": "published", "pairs": "count"}
    p_values = _numbers(found["p_holm"])
    p_strip = Strip("p", tuple(map(_p_words, p_values)), "measured", p_values)
    return [
        Section(
            "baseline", heading, strips + _test_strips(found.rename(columns=names), "difference", p_strip)
        )
    ]


def _p_words(p: float | None) -> str:
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _claim(answers: Sequence[Answer]) -> Section:
    import pandas as pd

    found = pd.DataFrame([asdict(answer) for answer in answers]).rename(columns={"n": "count"})
    probabilities = _numbers(found["probability"])
    strip = Strip("probability", tuple(map(probability_words, probabilities)), "measured", probabilities)
    strips = [Strip("comparison", _words(found["text"]), "label"), *_test_strips(found, "margin", strip)]
    return Section("claim", f"Does the claim hold? {claim_words(answers)}", strips)


def _test_strips(found: "pd.DataFrame", heading: str, probability: Strip) -> list[Strip]:
    """A test's difference, that of the published numbers, number of seeds, probability and verdict."""
    columns = [COLUMNS[key] for key in found["metric"]]
    paper = _signed_strip("paper", "paper", found["published"], columns)
    return [
        _signed_strip(heading, "measured", found["difference"], columns, found["half_width"]),
        *([paper] if found["published"].notna().any() else []),
        Strip("n", _words(found["count"]), "measured", _numbers(found["count"].astype(float))),
        probability,
        Strip("verdict", _words(found["verdict"]), "verdict"),
    ]


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
    if column is None:
        heading = key.removeprefix(_OPTION).removeprefix("model.").replace("_", " ")
        return Strip(heading, _words(values), "state" if key == "state" else "label")
    numbers = _numbers(values)
    scaled = [None if number is None else number * column.scale for number in numbers]
    words = (NOTHING if number is None else f"{number:.{column.digits}f}" for number in scaled)
    return Strip(column.title, tuple(words), "measured")


def _signed_strip(
    heading: str,
    kind: Literal["measured", "paper"],
    values: Iterable[float | None],
    columns: Sequence[Column],
    half_widths: Iterable[float | None] | None = None,
) -> Strip:
    """Differences such as `+1.2`, or `+1.2 ± 0.8`."""
    numbers = _numbers(values)
    widths = _numbers(half_widths) if half_widths is not None else [None] * len(numbers)
    words = []
    for number, width, column in zip(numbers, widths, columns, strict=True):
        spread = "" if width is None else f" ± {width:.{column.digits}f}"
        # adding 0.0 turns -0.0 into 0.0
        rounded = None if number is None else round(number, column.digits) + 0.0
        words.append(NOTHING if rounded is None else f"{rounded:+.{column.digits}f}{spread}")
    return Strip(heading, tuple(words), kind, numbers)


def _words(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(NOTHING if value is None else str(value) for value in _numbers(values))


def _numbers(values: Iterable[Any]) -> tuple[Any, ...]:
    """As Python objects, None for what is missing."""
    import pandas as pd

    series = pd.Series(values)
    both = zip(series.tolist(), series.isna(), strict=True)
    return tuple(None if missing else value for value, missing in both)
