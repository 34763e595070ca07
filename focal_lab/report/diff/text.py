"""Two runs side by side as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from focal_lab.report.diff.compare import ComparedRun, Points, Value, common_curves, compare
from focal_lab.report.table.test_sets import differences
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.utils.text_table import TextColumn, aligned

_BOLD, _RED, _GREEN = "1", "31", "32"
_STYLES = {"better": _GREEN, "worse": _RED, "failed": _RED, "corrupt": _RED}
# metrics before costs
_ORDER = sorted(COLUMNS, key=lambda name: COLUMNS[name].task is None)
_MAX_EPOCHS, _MAX_CURVES = 10, 2


def diff_text(
    first: ComparedRun, second: ComparedRun, width: int | None = None, *, color: bool = False
) -> str:
    """The differences of two runs, second minus first; `width`: columns of the terminal, None: unlimited."""
    return _Text(first, second, width, color).text()


@dataclass(frozen=True)
class _Text:
    first: ComparedRun
    second: ComparedRun
    width: int | None
    color: bool

    def text(self) -> str:
        sections = [
            self._about(),
            self._settings("Configuration", self.first.configuration, self.second.configuration),
            self._settings("Network", self.first.network, self.second.network),
            self._metrics(),
            self._curves(),
            self._settings("Environment", self.first.environment, self.second.environment),
        ]
        return "\n".join(section for section in sections if section)

    @property
    def _names(self) -> tuple[str, str]:
        """IDs; runs of two folders may have the same."""
        if self.first.run != self.second.run:
            return self.first.run, self.second.run
        return f"{self.first.run} (1)", f"{self.second.run} (2)"

    def _about(self) -> str:
        columns = []
        for about in (self.first.about, self.second.about):
            cell, sweeps = ", ".join(about["labels"].values()) or None, ", ".join(about["sweeps"]) or None
            columns.append({"cell": cell, **about, "sweeps": sweeps})
        names = [
            name for name in columns[0] if name != "labels" and any(c[name] is not None for c in columns)
        ]
        rows = {name.replace("_", " "): (columns[0][name], columns[1][name]) for name in names}
        return self._pairs("run", rows, folds=True)

    def _settings(self, title: str, first: Mapping[str, Value], second: Mapping[str, Value]) -> str:
        found = compare(first, second)
        count = len(found.different)
        if not count:
            return self._title(title, f"all {found.same} are the same") if found.same else ""
        unknown = [name for name, known in zip(self._names, (first, second), strict=True) if not known]
        if unknown:
            return self._title(title, f"unknown for {unknown[0]}")
        differ, are = "differs" if count == 1 else "differ", "is" if found.same == 1 else "are"
        heading = self._title(title, f"{count} {differ}, {found.same} {are} the same")
        return heading + self._pairs("setting", found.different)

    def _metrics(self) -> str:
        known = {*self.first.metrics, *self.second.metrics}
        names = [*(name for name in _ORDER if name in known), *sorted(known.difference(COLUMNS))]
        if not names:
            return self._title("Metrics", "neither run has a result")
        rows = [(name, self.first.metrics.get(name), self.second.metrics.get(name)) for name in names]
        first, second = self._names
        mismatch = []
        if self.first.about["task"] == self.second.about["task"]:
            mismatch = differences(self.second.tested_on, self.first.tested_on)
        note = "on the test split"
        if mismatch:
            note = f"not comparable: {second} was tested on {' and '.join(mismatch)} than {first}"
        elif any(one is not None and other is not None for _, one, other in rows):
            note += ", one run each: a difference may be noise"
        return self._title("Metrics", note) + self._table(
            TextColumn("metric", [COLUMNS[name].title if name in COLUMNS else name for name in names]),
            TextColumn(first, [_number(name, one) for name, one, _ in rows], right=True),
            TextColumn(second, [_number(name, other) for name, _, other in rows], right=True),
            TextColumn("difference", [_difference(*row) for row in rows], right=True),
            TextColumn("second is", ["" if mismatch else _verdict(*row) for row in rows], style=_style),
        )

    def _curves(self) -> str:
        runs = zip(self._names, (self.first, self.second), strict=True)
        if without := [name for name, run in runs if not run.points]:
            return self._title("Curves", f"missing for {' and '.join(without)}")
        curves = common_curves(self.first, self.second)
        if not curves:
            return self._title("Curves", "no epoch in common")
        ends: dict[str, tuple[Value, Value]] = {}
        for name, points in curves.items():
            (_, *first), (_, *last) = points[0], points[-1]
            one, other = (f"{start:.4g} to {end:.4g}" for start, end in zip(first, last, strict=True))
            ends[name] = (one, other)
        count = max(map(len, curves.values()))
        heading = self._title("Curves", f"{count} common epoch{'' if count == 1 else 's'}")
        shown = dict(list(curves.items())[:_MAX_CURVES])
        return f"{heading}{self._pairs('curve', ends)}\n{self._epochs(shown)}"

    def _epochs(self, curves: Mapping[str, Sequence[Points]]) -> str:
        epochs = sorted({point[0] for points in curves.values() for point in points})
        count = min(len(epochs), _MAX_EPOCHS)
        shown = [epochs[round(i * (len(epochs) - 1) / max(1, count - 1))] for i in range(count)]
        columns = [TextColumn("epoch", [f"{epoch:g}" for epoch in shown], right=True)]
        for name, points in curves.items():
            cells = {epoch: (f"{a:.4g}", f"{b:.4g}", f"{b - a:+.4g}") for epoch, a, b in points}
            headings = [*(f"{name} {run}" for run in self._names), "difference"]
            for i, heading in enumerate(headings):
                column = [cells[epoch][i] if epoch in cells else "" for epoch in shown]
                columns.append(TextColumn(heading, column, right=True))
        return self._table(*columns)

    def _pairs(self, heading: str, rows: Mapping[str, tuple[Value, Value]], *, folds: bool = False) -> str:
        values = [
            TextColumn(name, [_word(pair[place]) for pair in rows.values()], folds=folds, style=_style)
            for place, name in enumerate(self._names)
        ]
        return self._table(TextColumn(heading, list(rows)), *values)

    def _table(self, *columns: TextColumn) -> str:
        return aligned(columns, self.width, color=self.color)

    def _title(self, title: str, note: str) -> str:
        return f"\033[{_BOLD}m{title}\033[0m: {note}\n" if self.color else f"{title}: {note}\n"


def _style(cell: str) -> str:
    return _STYLES.get(cell, "")


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
