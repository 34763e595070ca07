"""A table, or the main columns of the long table, as a grid of strings.

Text, Markdown, LaTeX and HTML show this grid, so they cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from focal_lab.report.statistics.power import MOST_SEEDS
from focal_lab.report.statistics.proportions import wilson
from focal_lab.report.table.claims import overall
from focal_lab.report.table.factor_effects import level_words, shown_effects
from focal_lab.report.table.records import (
    NOTHING,
    Answer,
    Effect,
    Entry,
    Outcome,
    Row,
    Source,
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
    **dict.fromkeys(("too few seeds", "inconclusive", "no spread", "other test set"), ("warn", "○")),
    **dict.fromkeys(("equivalent", "same runs", "other data"), ("even", "≈")),
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
    """A grid below the table, under a heading; `name`: baseline, effects-METRIC, sources-METRIC or claim."""

    name: str
    heading: str
    strips: list[Strip]


def table_grid(table: Table) -> list[Strip]:
    """The columns of a sweep's table: labels, each measurement and to its right the paper's number, runs."""
    strips = _label_strips(table.factors, table.rows)
    if any(row.data for row in table.rows):
        strips.append(_strip("data", "label", [row.data or None for row in table.rows]))
    for column in table.columns:
        entries = [row.entries[column.key] for row in table.rows]
        strips += _column_strips(column, entries)
        if column.key in table.success:
            strips.append(_success_strip(column, table.success[column.key], entries))
    finished = tuple(float(row.states[State.FINISHED]) for row in table.rows)
    return [*strips, Strip("Runs", tuple(map(runs_words, table.rows)), "state", finished)]


def table_sections(table: Table) -> list[Section]:
    """What follows the table: rows against their baselines, effects of factors, parts of the claim."""
    claim = [_claim(table.answers)] if table.answers else []
    return [*_comparisons(table), *_effects(table), *_sources(table), *claim]


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


def _success_strip(column: Column, threshold: float, entries: Sequence[Entry]) -> Strip:
    """`4/5 (38 to 96 %)`: seeds that reach the threshold, and Wilson's interval of their share."""
    words = []
    for entry in entries:
        if not entry.n or entry.successes is None:
            words.append(NOTHING)
            continue
        low, high = wilson(entry.successes, entry.n)
        words.append(f"{entry.successes}/{entry.n} ({100 * low:.0f} to {100 * high:.0f} %)")
    shares = tuple(
        None if entry.successes is None or not entry.n else entry.successes / entry.n for entry in entries
    )
    sign = ">=" if column.higher_is_better else "<="
    return Strip(f"{sign} {threshold:g}", tuple(words), "measured", shares, task=column.task)


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
    outcomes = [(column, compared) for column, _, compared in found]
    return [Section("baseline", heading, strips + _outcome_strips(outcomes))]


def _effects(table: Table) -> list[Section]:
    sections = []
    for metric in dict.fromkeys(effect.metric for effect in table.effects):
        column = COLUMNS[metric]
        found, _ = shown_effects([effect for effect in table.effects if effect.metric == metric])
        differences = [(column, effect.difference, effect.half_width) for effect in found]
        strips = [
            _strip("effect", "label", [effect.kind for effect in found]),
            _strip("factor", "label", [_factor_words(effect) for effect in found]),
            _strip("levels", "label", [level_words(effect, table.rows) for effect in found]),
            _signed_strip("difference", "measured", differences),
            _strip("n", "measured", [effect.n for effect in found]),
        ]
        percents = tuple(effect.percent for effect in found)
        if any(percent is not None for percent in percents):
            words = tuple(NOTHING if percent is None else f"{percent:.0f} %" for percent in percents)
            strips.append(Strip("share", words, "measured", percents))
        sections.append(Section(f"effects-{metric}", f"Effects of the factors on {column.title}", strips))
    return sections


def _factor_words(effect: Effect) -> str:
    whole = effect.kind == "whole difference"
    return "all" if whole else ", ".join(factor.replace("_", " ") for factor in effect.levels)


def _sources(table: Table) -> list[Section]:
    sections = []
    for metric in dict.fromkeys(source.metric for source in table.sources):
        column = COLUMNS[metric]
        found = [source for source in table.sources if source.metric == metric]
        factors = [factor for factor in table.factors if factor in found[0].labels]
        strips = [
            _strip(factor.replace("_", " "), "label", [source.labels[factor] for source in found])
            for factor in factors
        ]
        sds = tuple(_sd_words(source, column.digits + 1) for source in found)
        strips += [
            _strip("source", "label", [source.source for source in found]),
            Strip("sd (95 %)", sds, "measured", tuple(source.sd for source in found)),
            Strip(
                "share (95 %)", tuple(map(_share_words, found)), "measured", tuple(s.percent for s in found)
            ),
            _strip("runs", "measured", [source.runs for source in found]),
        ]
        sections.append(Section(f"sources-{metric}", f"Sources of variance of {column.title}", strips))
    return sections


def _sd_words(source: Source, digits: int) -> str:
    return f"{source.sd:.{digits}f} ({source.sd_low:.{digits}f} to {source.sd_high:.{digits}f})"


def _share_words(source: Source) -> str:
    if source.percent is None:
        return NOTHING
    return f"{source.percent:.0f} % ({source.percent_low:.0f} to {source.percent_high:.0f} %)"


def _claim(answers: Sequence[Answer]) -> Section:
    outcomes = [(COLUMNS[answer.metric], answer) for answer in answers]
    strips = [_strip("comparison", "label", [answer.text for answer in answers]), *_outcome_strips(outcomes)]
    return Section("claim", f"Does the claim hold? {claim_words(answers)}", strips)


def _outcome_strips(outcomes: Sequence[tuple[Column, Outcome]]) -> list[Strip]:
    """Difference, that of the published numbers, seeds, p-value, verdict; power where nothing was found."""
    measured = [(column, found.difference, found.half_width) for column, found in outcomes]
    paper = [(column, found.published, None) for column, found in outcomes]
    strips = [_signed_strip("difference", "measured", measured)]
    if any(found.published is not None for _, found in outcomes):
        strips.append(_signed_strip("paper", "paper", paper))
    strips.append(_strip("n", "measured", [found.n for _, found in outcomes]))
    p_values = tuple(_shown_p(found) for _, found in outcomes)
    strips.append(Strip("p", tuple(map(_p_words, p_values)), "measured", p_values))
    strips.append(_strip("verdict", "verdict", [found.verdict for _, found in outcomes]))
    open_ones = [found for _, found in outcomes if found.detectable is not None]
    if open_ones:
        detectable = tuple(found.detectable for _, found in outcomes)
        words = [
            NOTHING if found.detectable is None else f"{found.detectable:.{column.digits}f}"
            for column, found in outcomes
        ]
        strips.append(Strip("detectable", tuple(words), "measured", detectable))
        margins = {found.margin for found in open_ones}
        heading = f"seeds for {margins.pop():g}" if len(margins) == 1 else "seeds for margin"
        strips.append(_strip(heading, "measured", [_seeds_words(found) for _, found in outcomes]))
    return strips


def _shown_p(found: Outcome) -> float | None:
    """Of the verdict, or for an open question of what was asked."""
    asked_same = isinstance(found, Answer) and found.p_equivalent is not None
    same = asked_same and found.verdict != "contradicted"
    return found.p_equivalent if same or found.verdict.startswith("equivalent") else found.p_holm


def _seeds_words(found: Outcome) -> str | None:
    if found.detectable is None:
        return None
    return f"> {MOST_SEEDS}" if found.seeds_needed is None else str(found.seeds_needed)


def _p_words(p: float | None) -> str:
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def tone(text: str) -> tuple[str, str]:
    """Tone and sign of a text, or of the most severe word in it: good, bad, warn, even, or empty."""
    word = next((word for word in _SEVERE if word in text), text)
    return _TONES.get("equivalent" if text.startswith("equivalent within") else word, ("", ""))


def claim_words(answers: Sequence[Answer]) -> str:
    """`Contradicted: 1 of 3 parts is.`"""
    verdict = overall(answers)
    total = len(answers)
    count = sum(answer.verdict == verdict for answer in answers)
    if total == 1:
        why = "" if answers[0].verdict == verdict else f": {answers[0].verdict}"
        return f"{verdict.capitalize()}{why}."
    if verdict == "supported":
        return f"Supported: all {total} parts are."
    if verdict == "contradicted":
        return f"Contradicted: {count} of {total} parts {'is' if count == 1 else 'are'}."
    supported = sum(answer.verdict == "supported" for answer in answers)
    return f"Inconclusive: {supported} of {total} parts {'is' if supported == 1 else 'are'} supported."


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
