"""Two runs side by side, for a terminal."""

from collections.abc import Mapping, Sequence

from focal_lab.report.diff.compare import CurvePair, Section, Side, Value, compare, curve_pairs
from focal_lab.report.table.test_sets import differences
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.utils.text_table import TextColumn, aligned

_BOLD, _RED, _GREEN = "1", "31", "32"
_VERDICTS = {"better": _GREEN, "worse": _RED}
# metrics before costs
_ORDER = sorted(COLUMNS, key=lambda name: COLUMNS[name].task is None)
_BARS = "▁▂▃▄▅▆▇█"
_MOST_EPOCHS, _MOST_BARS, _TABLED = 10, 40, 2
_UNKNOWN = "-"


def diff_text(first: Side, second: Side, width: int | None = None, *, color: bool = False) -> str:
    """What two runs differ in, one section under the other; what is the same is counted.

    Args:
        first: the run that the other is compared with.
        second: the other; differences are second minus first.
        width: columns of the terminal; None for as wide as it takes.
        color: use ANSI escape codes.
    """
    heads = _heads(first, second)
    parts = [_about(first, second, heads, width, color)]
    sections = {
        "Configuration": compare(first.config, second.config),
        "Network": compare(first.network, second.network),
        "Environment": compare(first.environment, second.environment),
    }
    known = {
        "Configuration": bool(first.config and second.config),
        "Network": bool(first.network and second.network),
        "Environment": bool(first.environment and second.environment),
    }
    for title in ("Configuration", "Network"):
        parts.append(_settings(title, sections[title], heads, width, color, known=known[title]))
    parts.append(_metrics(first, second, heads, width, color))
    parts.append(_curves(first, second, heads, width, color))
    parts.append(
        _settings("Environment", sections["Environment"], heads, width, color, known=known["Environment"])
    )
    return "\n".join(part for part in parts if part)


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Values as bars, from `low` to `high`; long curves are thinned out."""
    shown = _thinned(range(len(values)), _MOST_BARS)
    span = high - low
    return "".join(
        _BARS[min(len(_BARS) - 1, int((values[i] - low) / span * len(_BARS)) if span else 3)] for i in shown
    )


def _about(first: Side, second: Side, heads: Sequence[str], width: int | None, color: bool) -> str:
    rows: dict[str, tuple[Value, Value]] = {
        "cell": (", ".join(first.labels.values()) or None, ", ".join(second.labels.values()) or None),
        "task": (first.task, second.task),
        "seed": (first.seed, second.seed),
        "sweeps": (", ".join(first.sweeps) or None, ", ".join(second.sweeps) or None),
        "state": (first.state, second.state),
        "reason": (first.reason, second.reason),
        "last line": (first.last_line, second.last_line),
        "started": (first.started, second.started),
        "finished": (first.finished, second.finished),
    }
    known = {name: pair for name, pair in rows.items() if pair != (None, None)}
    return _pairs("run", known, heads, width, color, folds=True)


def _settings(
    title: str, section: Section, heads: Sequence[str], width: int | None, color: bool, *, known: bool
) -> str:
    if not section.different and not section.same:
        return ""
    if not known and not section.same:
        lacking = [
            head
            for i, head in enumerate(heads)
            if all(pair[i] is None for pair in section.different.values())
        ]
        return _title(title, f"{' and '.join(lacking)}: nothing is known of it", color)
    count = len(section.different)
    told = f"{count} {'differs' if count == 1 else 'differ'}, {section.same} {_be(section.same)} the same"
    if not count:
        return _title(title, f"all {section.same} are the same", color)
    return _title(title, told, color) + _pairs("setting", section.different, heads, width, color)


def _metrics(first: Side, second: Side, heads: Sequence[str], width: int | None, color: bool) -> str:
    known = {*first.metrics, *second.metrics}
    names = [*(name for name in _ORDER if name in known), *sorted(known.difference(COLUMNS))]
    if not names:
        return _title("Metrics", "neither run has a result", color)
    rows = [(name, first.metrics.get(name), second.metrics.get(name)) for name in names]
    apart = differences(second.tested_on, first.tested_on) if first.task == second.task else []
    judged = ["" if apart else _judged(*row) for row in rows]
    columns = [
        TextColumn("metric", [COLUMNS[name].title if name in COLUMNS else name for name in names]),
        TextColumn(heads[0], [_number(name, one) for name, one, _ in rows], right=True),
        TextColumn(heads[1], [_number(name, other) for name, _, other in rows], right=True),
        TextColumn("difference", [_difference(*row) for row in rows], right=True),
        TextColumn("second is", judged, style=lambda cell: _VERDICTS.get(cell, "")),
    ]
    told = "on the test split, one run each: no telling a difference from noise" if _both(rows) else ""
    if apart:
        told = f"these do not compare: {heads[1]} was tested on {' and '.join(apart)} than {heads[0]}"
    return _title("Metrics", told or "on the test split", color) + aligned(columns, width, color=color)


def _curves(first: Side, second: Side, heads: Sequence[str], width: int | None, color: bool) -> str:
    lacking = [head for head, side in zip(heads, (first, second), strict=True) if not side.points]
    if lacking:
        return _title("Curves", f"{' and '.join(lacking)} left none", color)
    pairs = [pair for pair in curve_pairs(first, second) if pair.epochs]
    if not pairs:
        return _title("Curves", "no epoch in common", color)
    longest = max(pairs, key=lambda pair: len(pair.epochs))
    told = f"{len(longest.epochs)} common epochs; bars of a curve have one scale"
    return (
        _title("Curves", told, color)
        + _bars(pairs, heads, width, color)
        + "\n"
        + _epochs(pairs[:_TABLED], heads, width, color)
    )


def _bars(pairs: Sequence[CurvePair], heads: Sequence[str], width: int | None, color: bool) -> str:
    names: list[str] = []
    runs, lines, ends = [], [], []
    for pair in pairs:
        low, high = min(*pair.first, *pair.second), max(*pair.first, *pair.second)
        for head, values in zip(heads, (pair.first, pair.second), strict=True):
            names.append("" if names and head == heads[1] else pair.name)
            runs.append(head)
            lines.append(sparkline(values, low, high))
            ends.append(f"{values[0]:.4g} to {values[-1]:.4g}")
    columns = [
        TextColumn("curve", names),
        TextColumn("run", runs),
        TextColumn("", lines),
        TextColumn("", ends),
    ]
    return aligned(columns, width, color=color)


def _epochs(pairs: Sequence[CurvePair], heads: Sequence[str], width: int | None, color: bool) -> str:
    epochs = sorted({epoch for pair in pairs for epoch in pair.epochs})
    shown = [epochs[i] for i in _thinned(range(len(epochs)), _MOST_EPOCHS)]
    columns = [TextColumn("epoch", [f"{epoch:g}" for epoch in shown], right=True)]
    for pair in pairs:
        values = {
            epoch: (one, other)
            for epoch, one, other in zip(pair.epochs, pair.first, pair.second, strict=True)
        }
        for place, head in enumerate(heads):
            cells = [f"{values[epoch][place]:.4g}" if epoch in values else "" for epoch in shown]
            columns.append(TextColumn(f"{pair.name} {head}", cells, right=True))
        cells = [f"{values[epoch][1] - values[epoch][0]:+.4g}" if epoch in values else "" for epoch in shown]
        columns.append(TextColumn("difference", cells, right=True))
    return aligned(columns, width, color=color)


def _pairs(
    heading: str,
    rows: Mapping[str, tuple[Value, Value]],
    heads: Sequence[str],
    width: int | None,
    color: bool,
    *,
    folds: bool = False,
) -> str:
    columns = [
        TextColumn(heading, list(rows)),
        TextColumn(heads[0], [_word(one) for one, _ in rows.values()], folds=folds, style=_state_style),
        TextColumn(heads[1], [_word(other) for _, other in rows.values()], folds=folds, style=_state_style),
    ]
    return aligned(columns, width, color=color)


def _heads(first: Side, second: Side) -> tuple[str, str]:
    """Ids; folders of two places may have runs of one id."""
    if first.run != second.run:
        return first.run, second.run
    return f"{first.run} (1)", f"{second.run} (2)"


def _title(title: str, told: str, color: bool) -> str:
    shown = f"\033[{_BOLD}m{title}\033[0m" if color else title
    return f"{shown}: {told}\n"


def _word(value: Value) -> str:
    if value is None:
        return _UNKNOWN
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:.{COLUMNS[name].digits}f}" if name in COLUMNS else f"{value:.4g}"


def _difference(name: str, one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return ""
    digits = COLUMNS[name].digits if name in COLUMNS else None
    # parameters of 0.58 M may differ by a few thousand
    tiny = digits is None or (one != other and not round(other - one, digits))
    return f"{other - one:+.2g}" if tiny else f"{other - one:+.{digits}f}"


def _judged(name: str, one: float | None, other: float | None) -> str:
    """Costs are not judged: a run on a busy machine is no worse."""
    if name not in COLUMNS or COLUMNS[name].task is None or one is None or other is None or one == other:
        return ""
    return "better" if (other > one) == COLUMNS[name].higher_is_better else "worse"


def _both(rows: Sequence[tuple[str, float | None, float | None]]) -> bool:
    return any(one is not None and other is not None for _, one, other in rows)


def _state_style(cell: str) -> str:
    return _RED if cell in ("failed", "corrupt") else ""


def _thinned(places: range, most: int) -> list[int]:
    """At most so many of them, the first and the last always."""
    if len(places) <= most:
        return list(places)
    return sorted({round(i * (len(places) - 1) / (most - 1)) for i in range(most)})


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
