"""Two runs side by side as text."""

from collections.abc import Mapping, Sequence

from focal_lab.report.diff.compare import ComparedRun, Points, Value, common_curves, compare
from focal_lab.report.formats.terminal import colour
from focal_lab.report.table.test_sets import differences
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.utils.text_table import TextColumn, aligned
from focal_lab.utils.units import many

# metrics before costs
_ORDER = sorted(COLUMNS, key=lambda name: COLUMNS[name].task is None)
_MAX_EPOCHS, _MAX_CURVES = 10, 2
# title, note, and columns of a table, if there is one
_Section = tuple[str, str, Sequence[TextColumn]]
_Names = tuple[str, str]


def diff_text(
    first: ComparedRun, second: ComparedRun, width: int | None = None, *, color: bool = False
) -> str:
    """The differences of two runs, second minus first; `width`: columns of the terminal, None: unlimited."""
    names = (first.run, second.run)
    if first.run == second.run:  # of two folders
        names = (f"{first.run} (1)", f"{second.run} (2)")
    sections = [
        *_settings(names, "Configuration", first.configuration, second.configuration),
        *_settings(names, "Network", first.network, second.network),
        _metrics(names, first, second),
        _curves(names, first, second),
        *_settings(names, "Environment", first.environment, second.environment),
    ]
    text = aligned(_about(names, first, second), width, color=color)
    for title, note, columns in sections:
        text += f"\n\033[1m{title}\033[0m: {note}\n" if color else f"\n{title}: {note}\n"
        text += aligned(columns, width, color=color) if columns else ""
    return text


def _about(names: _Names, first: ComparedRun, second: ComparedRun) -> Sequence[TextColumn]:
    sides = []
    for run in (first, second):
        about = {"cell": ", ".join(run.about["labels"].values()) or None, **run.about}
        del about["labels"]
        sides.append(about | {"sweeps": ", ".join(about["sweeps"]) or None})
    rows = {name.replace("_", " "): (sides[0][name], sides[1][name]) for name in sides[0]}
    return _pairs(
        names, "run", {name: pair for name, pair in rows.items() if pair != (None, None)}, folds=True
    )


def _settings(
    names: _Names, title: str, first: Mapping[str, Value], second: Mapping[str, Value]
) -> list[_Section]:
    different, same = compare(first, second)
    if not different:
        return [(title, f"all {same} are the same", ())] if same else []
    unknown = [name for name, known in zip(names, (first, second), strict=True) if not known]
    if unknown:
        return [(title, f"unknown for {unknown[0]}", ())]
    differ, are = "differs" if len(different) == 1 else "differ", "is" if same == 1 else "are"
    note = f"{len(different)} {differ}, {same} {are} the same"
    return [(title, note, _pairs(names, "setting", different))]


def _metrics(names: _Names, first: ComparedRun, second: ComparedRun) -> _Section:
    known = {*first.metrics, *second.metrics}
    metrics = [*(name for name in _ORDER if name in known), *sorted(known.difference(COLUMNS))]
    if not metrics:
        return "Metrics", "neither run has a result", ()
    rows = [(name, first.metrics.get(name), second.metrics.get(name)) for name in metrics]
    mismatch = []
    if first.about["task"] == second.about["task"]:
        mismatch = differences(second.tested_on, first.tested_on)
    note = "on the test split"
    if mismatch:
        note = f"not comparable: {names[1]} was tested on {' and '.join(mismatch)} than {names[0]}"
    elif first.metrics and second.metrics:
        note += ", one run each: a difference may be noise"
    columns = [
        TextColumn("metric", [COLUMNS[name].title if name in COLUMNS else name for name in metrics]),
        TextColumn(names[0], [_number(name, one) for name, one, _ in rows], right=True),
        TextColumn(names[1], [_number(name, other) for name, _, other in rows], right=True),
        TextColumn("difference", [_difference(*row) for row in rows], right=True),
        TextColumn("second is", ["" if mismatch else _verdict(*row) for row in rows], style=colour),
    ]
    return "Metrics", note, columns


def _curves(names: _Names, first: ComparedRun, second: ComparedRun) -> _Section:
    """The most important curves at some common epochs, the first and the last one included."""
    if without := [name for name, run in zip(names, (first, second), strict=True) if not run.points]:
        return "Curves", f"missing for {' and '.join(without)}", ()
    curves = common_curves(first, second)
    if not curves:
        return "Curves", "no epoch in common", ()
    epochs = sorted({point[0] for points in curves.values() for point in points})
    count = min(len(epochs), _MAX_EPOCHS)
    shown = [epochs[round(i * (len(epochs) - 1) / max(1, count - 1))] for i in range(count)]
    columns = [TextColumn("epoch", [f"{epoch:g}" for epoch in shown], right=True)]
    for name, points in list(curves.items())[:_MAX_CURVES]:
        columns += _curve_columns(name, names, points, shown)
    return "Curves", many(len(epochs), "common epoch"), columns


def _curve_columns(
    curve: str, names: _Names, points: Sequence[Points], shown: Sequence[float]
) -> list[TextColumn]:
    cells = {epoch: (f"{a:.4g}", f"{b:.4g}", f"{b - a:+.4g}") for epoch, a, b in points}
    headings = [*(f"{curve} {name}" for name in names), "difference"]
    return [
        TextColumn(heading, [cells[epoch][i] if epoch in cells else "" for epoch in shown], right=True)
        for i, heading in enumerate(headings)
    ]


def _pairs(
    names: _Names, heading: str, rows: Mapping[str, tuple[Value, Value]], *, folds: bool = False
) -> list[TextColumn]:
    values = [
        TextColumn(name, [_word(pair[place]) for pair in rows.values()], folds=folds, style=colour)
        for place, name in enumerate(names)
    ]
    return [TextColumn(heading, list(rows)), *values]


def _word(value: Value) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.{COLUMNS[name].digits}f}" if name in COLUMNS else f"{value:.4g}"


def _difference(name: str, one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return ""
    digits = COLUMNS[name].digits if name in COLUMNS else None
    # parameters of 0.58 M may differ by a few thousand
    tiny = digits is None or (one != other and not round(other - one, digits))
    return f"{other - one:+.2g}" if tiny else f"{other - one:+.{digits}f}"


def _verdict(name: str, one: float | None, other: float | None) -> str:
    """For metrics only: costs depend on what else the machine does."""
    if name not in COLUMNS or COLUMNS[name].task is None or one is None or other is None or one == other:
        return ""
    return "better" if (other > one) == COLUMNS[name].higher_is_better else "worse"
