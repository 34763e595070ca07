"""A sweep file: what is varied, over which tasks and seeds, and which table it fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, did_you_mean, known_names, one_of
from focal_lab.sweep.spec.checks import check_keys, choice, entries, mapping, once, switch
from focal_lab.sweep.spec.claim_grammar import Expectation, parse_expectation
from focal_lab.sweep.spec.columns import MAIN, check_margin, find_column
from focal_lab.sweep.spec.search_section import SearchSection, load_search
from focal_lab.sweep.spec.shapley import reference_levels
from focal_lab.sweep.spec.suite import EXPERIMENTS
from focal_lab.sweep.spec.tune_section import Tuning, load_tuning
from focal_lab.utils.yaml import load_written, plain

TASKS = ("classification", "detection", "segmentation")
# Planning these takes a minute; many more are a mistake.
MOST_RUNS = 100_000
DESIGNS = ("grid", "one_factor")
_TEXTS = ("title", "paper", "claim", "expect", "margin", "success", "baseline")
_DESIGN = ("tasks", "seeds", "design", "factors", "exclude", "cells", "search", "tune", "columns", "set")
_KEYS = (*_TEXTS, *_DESIGN, "suites", "allow_degenerate")


@dataclass(frozen=True)
class Level:
    """One value of a factor: the label that tables show, and the configuration keys it sets."""

    label: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked.

    Attributes:
        name: the file's stem.
        paper: which published table is printed beside it.
        claim: what the paper says the table shows.
        expectations: comparisons of cells, which all hold if the claim does.
        baseline: what each row is compared with, factor -> own label -> the baseline's; other labels stay.
            Empty: the first row.
        margins: metric -> margin of equivalence, where the file sets it.
        success: metric -> value from which on a run has succeeded.
        factors: name -> levels, in the order of the table's columns and rows.
        design: grid (all combinations) or one_factor (one at a time around the first levels).
        exclude: combinations left out, as factor -> label; factors not named match any level.
        cells: combinations listed by hand instead of a design.
        settings: configuration keys set in every run.
        search: how runs are proposed; None for a design.
        tuning: what every cell and seed tries, to keep the best; None: no tuning.
        allow_degenerate: accept labels that give the same network.
    """

    name: str
    path: Path
    title: str
    paper: str | None
    claim: str | None
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: dict[str, tuple[Level, ...]]
    columns: tuple[str, ...]
    design: str = "grid"
    exclude: tuple[dict[str, str], ...] = ()
    cells: tuple[dict[str, str], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    allow_degenerate: bool = False
    search: SearchSection | None = None
    tuning: Tuning | None = None
    expectations: tuple[Expectation, ...] = ()
    baseline: dict[str, dict[str, str]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    success: dict[str, float] = field(default_factory=dict)

    def margin(self, metric: str) -> float:
        """The largest difference of a metric that counts as none, in its unit."""
        found = self.margins.get(metric, find_column(metric).margin)
        assert found is not None
        return found


def find_sweep(name: str) -> Path:
    """The file of a sweep: a path, or the bare name of a file in `sweeps/`.

    Raises:
        UserError: there is no such file; the message names a similar one, or all in `sweeps/`.
    """
    path = Path(name)
    if path.is_file():
        return path
    files = {file.stem: file for file in sorted(Path("sweeps").glob("*.yaml"))}
    if name in files:
        return files[name]
    hint = did_you_mean(path.stem, files) if name else ""
    use = f" (use {one_of(files.values())})" if files else ""
    raise UserError(f"there is no such sweep file{hint or use}", file=name)


def load_sweep(path: Path, suite: str) -> Sweep:
    """Read and check a sweep file for one suite.

    A section `suites: {NAME: {...}}` changes keys of the file for that suite alone.

    Raises:
        UserError: the file is missing, malformed or breaks a rule; the message names the dotted key.
    """
    written = load_written(path)
    try:
        return _sweep_from(_for_suite(written, suite), path)
    except UserError as error:
        raise UserError(error.message, file=path, key=_place(error.key, written, suite)) from error


def _place(key: str | None, written: Mapping[Any, Any], suite: str) -> str | None:
    """The key as the file has it: `margin`, or `suites.NAME.margin` if the suite's section sets it."""
    section = written.get("suites")
    changed = section.get(suite) if isinstance(section, Mapping) else None
    keys = {*changed} - {"suites"} if isinstance(changed, Mapping) else {}
    inside = key is not None and key.partition(".")[0] in keys
    return f"suites.{suite}.{key}" if inside else key


def _sweep_from(written: Mapping[Any, Any], path: Path) -> Sweep:
    raw = plain(written)
    tasks = tasks_from(raw.get("tasks", ["classification"]))
    search = _search(raw, tasks)
    factors = _factors(written.get("factors", {}))
    if search is not None:
        ranges = mapping(written["search"].get("ranges"), "search.ranges")
        listed = {name: ranges[name] for name in ranges if str(plain(name)) not in search.ranges}
        factors |= _factors(listed, "search.ranges")
    if not factors and not (search and search.ranges):
        raise UserError("a sweep needs at least one factor with levels", key="factors")
    cells: list[dict[str, str]] = []
    for key, entry in entries(written, "cells"):
        cell = _combination(entry, factors, key)
        missing = [name for name in factors if name not in cell]
        if missing:
            raise UserError(f"lacks the factor {missing[0]}", key=key)
        if cell in cells:
            raise UserError(f"repeats cells.{cells.index(cell)}", key=key)
        cells.append(cell)
    baseline = _baseline(written.get("baseline"), factors)
    labels = {name: [level.label for level in levels] for name, levels in factors.items()}
    full = search is None and _is_full_grid(raw, labels, len(cells))
    references = reference_levels(labels, baseline) if full else None
    columns = _columns(raw.get("columns", ["params", "gmacs", "top1"]))
    return Sweep(
        name=path.stem,
        path=path,
        title=str(written.get("title") or path.stem.replace("_", " ")),
        paper=None if raw.get("paper") is None else str(written["paper"]),
        claim=None if raw.get("claim") is None else str(written["claim"]),
        tasks=tasks,
        seeds=seeds_from(raw.get("seeds", 1 if search else 3)),
        factors=factors,
        columns=columns,
        design=choice(raw.get("design", "grid"), DESIGNS, "design"),
        exclude=tuple(_combination(entry, factors, key) for key, entry in entries(written, "exclude")),
        cells=tuple(cells),
        settings=dict(mapping(raw.get("set", {}), "set")),
        allow_degenerate=switch(raw.get("allow_degenerate", False), "allow_degenerate"),
        search=search,
        tuning=_tuning(raw, tasks, factors),
        expectations=_expectations(raw, labels, references, tasks[0]),
        baseline=baseline,
        margins=_margins(raw.get("margin"), columns, tasks),
        success=_success(raw.get("success"), columns),
    )


def _for_suite(written: Mapping[Any, Any], suite: str) -> dict[Any, Any]:
    """The file's keys as the section of a suite changes them."""
    check_keys(written, _KEYS, "a sweep file", "")
    suites = mapping(written.get("suites", {}), "suites")
    for name, section in suites.items():
        key, text = f"suites.{name}", str(plain(name))
        folders = [one.name for one in EXPERIMENTS.iterdir() if one.is_dir()] if EXPERIMENTS.is_dir() else []
        hint = "" if text in folders else did_you_mean(text, folders)
        if hint:  # its section would change nothing
            raise UserError(f"{text} is not a suite{hint}", key="suites")
        allowed = [one for one in _KEYS if one != "suites"]
        check_keys(mapping(section, key), allowed, "a sweep file", key)
    changes = mapping(suites.get(suite, {}), f"suites.{suite}")
    return {key: value for key, value in written.items() if key != "suites"} | dict(changes)


def _baseline(raw: Any, factors: Mapping[str, Sequence[Level]]) -> dict[str, dict[str, str]]:
    """`{factor: label}`, the same for all rows, or `{factor: {label: label of its baseline}}`."""
    found = {}
    for name, value in mapping(raw, "baseline").items():
        if isinstance(value, Mapping):
            pairs = {label_of(own): label_of(theirs) for own, theirs in value.items()}
            for label in (*pairs, *pairs.values()):
                _combination({name: label}, factors, "baseline")
        else:
            label = _combination({name: value}, factors, "baseline")[str(name)]
            pairs = {level.label: label for level in factors[name]}
        found[str(name)] = pairs
    return found


def _is_full_grid(raw: Mapping[str, Any], labels: Mapping[str, Sequence[str]], cells: int) -> bool:
    """Whether the cells are all combinations of the levels; `cells`: those listed by hand."""
    if cells:
        return cells == prod(map(len, labels.values())) and not raw.get("exclude")
    varied = [names for names in labels.values() if len(names) > 1]
    return (raw.get("design", "grid") == "grid" or len(varied) < 2) and not raw.get("exclude")


def _expectations(
    raw: Mapping[str, Any],
    labels: Mapping[str, Sequence[str]],
    references: Mapping[str, str] | None,
    task: str,
) -> tuple[Expectation, ...]:
    expectations = []
    for key, text in entries(raw, "expect"):
        try:
            expectation = parse_expectation(str(text), labels, task, references)
        except UserError as error:
            raise UserError(error.message, key=key) from None
        if expectation.metric not in {*raw.get("columns", []), *MAIN.values()}:
            raise UserError(f"add {expectation.metric} to columns", key=key)
        expectations.append(expectation)
    return tuple(expectations)


def _margins(raw: Any, columns: Sequence[str], tasks: Sequence[str]) -> dict[str, float]:
    """`0.5`, for all metrics in points, or `{metric: margin}`."""
    if raw is None:
        return {}
    shown = dict.fromkeys([*columns, *(MAIN[task] for task in tasks)])
    if not isinstance(raw, Mapping):
        wanted = {name: raw for name in shown if find_column(name).in_points}
        if not wanted:
            raise UserError("no column is in points; name the metric: {loss: 0.02}", key="margin")
        where = dict.fromkeys(wanted, "margin")
    else:
        wanted = {str(name): value for name, value in raw.items()}
        where = {name: f"margin.{name}" for name in wanted}
    found = {}
    for name, value in wanted.items():
        try:
            found[name] = check_margin(name, value)
        except UserError as error:
            raise UserError(error.message, key=where[name]) from None
        if name not in {*shown, *MAIN.values()}:
            raise UserError(f"add {name} to columns", key=where[name])
    return found


def _success(raw: Any, columns: Sequence[str]) -> dict[str, float]:
    """`{metric: threshold}`: at least so much, or of a loss at most."""
    found = {}
    for name, value in mapping(raw, "success").items():
        key = f"success.{name}"
        try:
            column = find_column(str(name))
        except UserError as error:
            raise UserError(error.message, key="success") from error
        if column.task is None:
            raise UserError(f"{name} is not a metric of a task", key=key)
        if name not in columns:
            raise UserError(f"add {name} to columns", key=key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not number or (column.in_points and not 1 < value < 100):
            unit = "points between 1 and 100" if column.in_points else "a number"
            raise UserError(f"{value!r} is not a threshold of {name} (use {unit})", key=key)
        found[str(name)] = float(value)
    return found


def _search(raw: Mapping[str, Any], tasks: Sequence[str]) -> SearchSection | None:
    """The search, if the file has one."""
    if raw.get("search") is None:
        return None
    for key in ("design", "cells", "exclude"):
        if raw.get(key):
            raise UserError(f"has no meaning beside search; drop {key}", key=key)
    search, categories = load_search(raw["search"], tasks[0])
    if search.trials > MOST_RUNS:
        raise UserError(_too_many(search.trials, ""), key="search.trials")
    for name in (*search.ranges, *categories):
        if name in (raw.get("factors") or {}):
            raise UserError(f"{name} is a factor, too; drop one", key=f"search.ranges.{name}")
    return search


def _tuning(
    raw: Mapping[str, Any], tasks: Sequence[str], factors: Mapping[str, Sequence[Level]]
) -> Tuning | None:
    tuning = load_tuning(raw.get("tune"))
    if tuning is None:
        return None
    if raw.get("search") is not None:
        raise UserError("has no meaning beside search; drop one of them", key="tune")
    if len(tasks) > 1:
        raise UserError("tunes one task; sweep the others from the tuned settings", key="tune")
    for name in tuning.ranges:
        if name in factors:
            raise UserError(f"{name} is a factor, too; drop one", key=f"tune.ranges.{name}")
    return tuning


def _too_many(count: int, what: str) -> str:
    return f"{count:,}{what} are more than the {MOST_RUNS:,} runs of a plan"


def seeds_from(value: Any, key: str = "seeds") -> tuple[int, ...]:
    """A number n stands for the seeds 0 .. n - 1; a list is taken as it is.

    Raises:
        UserError: neither a positive number nor a list of different non-negative integers.
    """
    # type() and not isinstance: True is not a seed
    if type(value) is int and value > MOST_RUNS:
        raise UserError(_too_many(value, " seeds"), key=key)
    if type(value) is int and value > 0:
        return tuple(range(value))
    integers = isinstance(value, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
    if integers and value and len(set(value)) == len(value):
        return tuple(value)
    raise UserError(f"{value!r} is neither a number of seeds nor a list of different seeds", key=key)


def tasks_from(value: Any, key: str = "tasks") -> tuple[str, ...]:
    """A task or a list of different ones.

    Raises:
        UserError: anything else.
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise UserError(f"{value!r} is not a list of tasks (use {one_of(TASKS)})", key=key)
    return once([choice(name, TASKS, key) for name in names], key)


def _factors(raw: Any, where: str = "factors") -> dict[str, tuple[Level, ...]]:
    factors = {}
    for name, levels in mapping(raw, where).items():
        key = f"{where}.{name}"
        if isinstance(levels, Mapping):
            chosen = [
                Level(label_of(label), plain(dict(mapping(settings, f"{key}.{label}"))))
                for label, settings in levels.items()
            ]
        elif isinstance(levels, Sequence) and not isinstance(levels, str):
            chosen = [Level(label_of(value), {str(name): plain(value)}) for value in levels]
        else:
            raise UserError(
                f"{plain(levels)!r} is neither a list of values nor labels with settings", key=key
            )
        labels = [level.label for level in chosen]
        if not labels:
            raise UserError("has no levels", key=key)
        if "" in labels:
            raise UserError("a label must not be empty", key=key)
        once([f"the label {label}" for label in labels], key)
        factors[str(name)] = tuple(chosen)
    return factors


def label_of(value: Any) -> str:
    """How a value is shown: as it is written in the file, a list as 2-2-6-2."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "-".join(label_of(entry) for entry in value)
    return str(plain(value) if isinstance(value, Mapping) else value)


def _combination(raw: Any, factors: Mapping[str, Sequence[Level]], key: str) -> dict[str, str]:
    chosen = {}
    for name, value in mapping(raw, key).items():
        if name not in factors:
            raise UserError(f"{name} is not a factor{known_names(str(name), factors)}", key=key)
        label, labels = label_of(value), [level.label for level in factors[name]]
        if label not in labels:
            hint = known_names(label, labels)
            raise UserError(f"{label} is not a level{hint}", key=f"{key}.{name}")
        chosen[str(name)] = label
    return chosen


def _columns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{value!r} is not a list of columns", key="columns")
    for name in value:
        try:
            find_column(str(name))
        except UserError as error:
            raise UserError(error.message, key="columns") from error
    return once(value, "columns")
