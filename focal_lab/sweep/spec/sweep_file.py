"""A sweep file: what is varied, over which tasks and seeds, and which table it answers with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, did_you_mean, one_of
from focal_lab.sweep.spec.claim_grammar import Expectation, parse_expectation
from focal_lab.sweep.spec.columns import MAIN, find_column
from focal_lab.sweep.spec.search_section import Search, load_search
from focal_lab.sweep.spec.suite import EXPERIMENTS
from focal_lab.utils.yaml import load_written, plain

TASKS = ("classification", "detection", "segmentation")
# A plan of these takes a minute to make; one of many more is a slip of the pen.
MOST_RUNS = 100_000
DESIGNS = ("grid", "one_factor")
_KEYS = (
    "title",
    "paper",
    "claim",
    "expect",
    "baseline",
    "tasks",
    "seeds",
    "design",
    "factors",
    "exclude",
    "cells",
    "search",
    "columns",
    "set",
    "suites",
    "allow_degenerate",
)


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
        title: heading of the table.
        paper: which published table stands beside it; None for none.
        claim: what the paper says the table shows.
        expectations: what the claim comes to; all of them hold if it does.
        baseline: what each row is compared with, factor -> own label -> the baseline's; labels that are not
            named stay. Empty: the first row.
        tasks: what every cell is trained for.
        seeds: one run per cell, task and seed.
        factors: name -> levels, in the order of the table's columns and rows.
        design: grid (all combinations) or one_factor (one at a time around the first levels).
        exclude: combinations left out, as factor -> label; factors not named match any level.
        cells: combinations listed by hand instead of a design.
        columns: what the table shows.
        settings: configuration keys set in every run.
        search: how proposals are made, instead of a design; None for a design.
        allow_degenerate: accept labels that come to the same network.
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
    search: Search | None = None
    expectations: tuple[Expectation, ...] = ()
    baseline: dict[str, dict[str, str]] = field(default_factory=dict)


def find_sweep(name: str) -> Path:
    """The file of a sweep: a path, or the bare name of a file in `sweeps/`.

    Raises:
        UserError: there is no such file; the message lists those in `sweeps/`.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = sorted(Path("sweeps").glob("*.yaml"))
    if path.suffix == "" and path.parent == Path():
        for candidate in shipped:
            if candidate.stem == name:
                return candidate
    way_out = f" (use {one_of(shipped)})" if shipped else ""
    raise UserError(f"there is no such sweep file{way_out}", file=name)


def load_sweep(path: Path, suite: str) -> Sweep:
    """Read and check a sweep file for one suite.

    A section `suites: {NAME: {...}}` changes keys of the file for that suite alone.

    Raises:
        UserError: the file is missing, malformed or breaks a rule; the message names the dotted key.
    """
    written: Mapping[Any, Any] = load_written(path)
    _check_keys(written, _KEYS, path, "")
    suites = _mapping(written.get("suites", {}), path, "suites")
    for name in suites:
        _check_suite(str(plain(name)), path)
        section = _mapping(suites[name], path, f"suites.{name}")
        _check_keys(section, [key for key in _KEYS if key != "suites"], path, f"suites.{name}")
    changes = _mapping(suites.get(suite, {}), path, f"suites.{suite}")
    written = {key: value for key, value in written.items() if key != "suites"} | dict(changes)
    raw = plain(written)
    tasks = tasks_from(raw.get("tasks", ["classification"]), path)
    search = _search(raw, tasks, path)
    ranges = _mapping(written["search"].get("ranges"), path, "search.ranges") if search else {}
    categories = {name: ranges[name] for name in ranges if search and str(plain(name)) not in search.ranges}
    factors = _factors(written.get("factors", {}), path) | _factors(categories, path, "search.ranges")
    if not factors and not (search and search.ranges):
        raise UserError("a sweep needs at least one factor with levels", file=path, key="factors")
    cells = tuple(
        _combination(entry, factors, path, f"cells.{i}") for i, entry in _listed(written, "cells", path)
    )
    for i, cell in enumerate(cells):
        missing = [name for name in factors if name not in cell]
        if missing:
            raise UserError(f"lacks the factor {missing[0]}", file=path, key=f"cells.{i}")
        if cell in cells[:i]:
            raise UserError(f"is cells.{cells.index(cell)} again", file=path, key=f"cells.{i}")
    return Sweep(
        name=path.stem,
        path=path,
        title=str(written.get("title") or path.stem.replace("_", " ")),
        paper=None if raw.get("paper") is None else str(written["paper"]),
        claim=None if raw.get("claim") is None else str(written["claim"]),
        tasks=tasks,
        seeds=seeds_from(raw.get("seeds", 1 if search else 3), path),
        factors=factors,
        columns=_columns(raw.get("columns", ["params", "gmacs", "top1"]), path),
        design=_choice(raw.get("design", "grid"), DESIGNS, path, "design"),
        exclude=tuple(
            _combination(entry, factors, path, f"exclude.{i}")
            for i, entry in _listed(written, "exclude", path)
        ),
        cells=cells,
        settings=dict(_mapping(raw.get("set", {}), path, "set")),
        allow_degenerate=_switch(raw.get("allow_degenerate", False), path, "allow_degenerate"),
        search=search,
        expectations=_expectations(raw, factors, tasks[0], path),
        baseline=_baseline(written.get("baseline"), factors, path),
    )


def _baseline(raw: Any, factors: Mapping[str, Sequence[Level]], path: Path) -> dict[str, dict[str, str]]:
    """`{factor: label}`, the same for all rows, or `{factor: {label: label of its baseline}}`."""
    found = {}
    for name, value in _mapping(raw, path, "baseline").items():
        if isinstance(value, Mapping):
            pairs = {label_of(own): label_of(theirs) for own, theirs in value.items()}
            for label in (*pairs, *pairs.values()):
                _combination({name: label}, factors, path, "baseline")
        else:
            label = _combination({name: value}, factors, path, "baseline")[str(name)]
            pairs = {level.label: label for level in factors[name]}
        found[str(name)] = pairs
    return found


def _expectations(
    raw: Mapping[str, Any], factors: Mapping[str, Sequence[Level]], task: str, path: Path
) -> tuple[Expectation, ...]:
    labels = {name: [level.label for level in levels] for name, levels in factors.items()}
    expectations = []
    for number, text in _listed(raw, "expect", path):
        try:
            expectation = parse_expectation(str(text), labels, task)
        except UserError as error:
            raise UserError(error.message, file=path, key=f"expect.{number}") from None
        shown = {*raw.get("columns", []), *MAIN.values()}
        if expectation.metric not in shown:
            raise UserError(f"add {expectation.metric} to columns", file=path, key=f"expect.{number}")
        expectations.append(expectation)
    return tuple(expectations)


def _search(raw: Mapping[str, Any], tasks: Sequence[str], path: Path) -> Search | None:
    """The search, if the file is one."""
    if raw.get("search") is None:
        return None
    for key in ("design", "cells", "exclude"):
        if raw.get(key):
            raise UserError(f"has no meaning beside search; drop {key}", file=path, key=key)
    if len(tasks) > 1:
        raise UserError("a search has one task", file=path, key="tasks")
    search, categories = load_search(raw["search"], path, tasks[0])
    if search.trials > MOST_RUNS:
        raise UserError(
            f"{search.trials:,} are more than the {MOST_RUNS:,} runs of a plan",
            file=path,
            key="search.trials",
        )
    for name in (*search.ranges, *categories):
        if name in (raw.get("factors") or {}):
            raise UserError(f"{name} is a factor, too; drop one", file=path, key=f"search.ranges.{name}")
    return search


def seeds_from(value: Any, path: Path | None, key: str = "seeds") -> tuple[int, ...]:
    """A number n stands for the seeds 0 .. n - 1; a list is taken as it is.

    Raises:
        UserError: neither a positive number nor a list of different non-negative integers.
    """
    # type() and not isinstance: True is no seed
    if type(value) is int and value > MOST_RUNS:
        raise UserError(f"{value:,} seeds are more than the {MOST_RUNS:,} runs of a plan", file=path, key=key)
    if type(value) is int and value > 0:
        return tuple(range(value))
    whole = isinstance(value, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
    if whole and value and len(set(value)) == len(value):
        return tuple(value)
    raise UserError(
        f"{value!r} is neither a number of seeds nor a list of different seeds", file=path, key=key
    )


def tasks_from(value: Any, path: Path | None, key: str = "tasks") -> tuple[str, ...]:
    """A task or a list of different ones.

    Raises:
        UserError: anything else.
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise UserError(f"{value!r} is no list of tasks (use {one_of(TASKS)})", file=path, key=key)
    return _once([_choice(name, TASKS, path, key) for name in names], path, key)


def _factors(raw: Any, path: Path, where: str = "factors") -> dict[str, tuple[Level, ...]]:
    factors = {}
    for name, levels in _mapping(raw, path, where).items():
        key = f"{where}.{name}"
        if isinstance(levels, Mapping):
            chosen = [
                Level(label_of(label), plain(dict(_mapping(settings, path, f"{key}.{label}"))))
                for label, settings in levels.items()
            ]
        elif isinstance(levels, Sequence) and not isinstance(levels, str):
            chosen = [Level(label_of(value), {str(name): plain(value)}) for value in levels]
        else:
            raise UserError(
                f"{plain(levels)!r} is neither a list of values nor labels with settings", file=path, key=key
            )
        labels = [level.label for level in chosen]
        if not labels:
            raise UserError("has no levels", file=path, key=key)
        for label in labels:
            if not label:
                raise UserError("an empty text is not a label", file=path, key=key)
            if labels.count(label) > 1:
                raise UserError(f"the label {label} stands twice", file=path, key=key)
        factors[str(name)] = tuple(chosen)
    return factors


def label_of(value: Any) -> str:
    """How a value is shown: as it is written in the file, a list as 2-2-6-2."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "-".join(label_of(entry) for entry in value)
    return str(plain(value) if isinstance(value, Mapping) else value)


def _combination(raw: Any, factors: Mapping[str, Sequence[Level]], path: Path, key: str) -> dict[str, str]:
    chosen = {}
    for name, value in _mapping(raw, path, key).items():
        if name not in factors:
            raise UserError(f"{name} is not a factor (use {one_of(factors)})", file=path, key=key)
        labels = [level.label for level in factors[name]]
        if label_of(value) not in labels:
            raise UserError(
                f"{label_of(value)} is not a level (use {one_of(labels)})", file=path, key=f"{key}.{name}"
            )
        chosen[str(name)] = label_of(value)
    return chosen


def _listed(raw: Mapping[str, Any], name: str, path: Path) -> list[tuple[int, Any]]:
    value = raw.get(name) or []
    if not isinstance(value, list):
        if plain(value) is None:
            return []
        raise UserError(f"{plain(value)!r} is no list", file=path, key=name)
    return list(enumerate(value))


def _columns(value: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{value!r} is no list of columns", file=path, key="columns")
    for name in value:
        try:
            find_column(str(name))
        except UserError as error:
            raise UserError(error.message, file=path, key="columns") from error
    return _once(value, path, "columns")


def _once(names: Sequence[str], path: Path | None, key: str) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} stands twice", file=path, key=key)
    return tuple(names)


def _choice(value: Any, allowed: Sequence[str], path: Path | None, key: str) -> str:
    if value not in allowed:
        raise UserError(f"{value!r} is unknown (use {one_of(allowed)})", file=path, key=key)
    return str(value)


def _switch(value: Any, path: Path, key: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is neither true nor false", file=path, key=key)
    return value


def _check_suite(name: str, path: Path) -> None:
    """Refuse what is nearly the name of a suite: its section would change nothing."""
    if EXPERIMENTS.is_dir() and not (EXPERIMENTS / name).is_dir():
        hint = did_you_mean(name, [folder.name for folder in EXPERIMENTS.iterdir() if folder.is_dir()])
        if hint:
            raise UserError(f"{name} is not a suite{hint}", file=path, key="suites")


def _check_keys(raw: Mapping[str, Any], allowed: Sequence[str], path: Path, key: str) -> None:
    for name in raw:
        if name not in allowed:
            raise UserError(
                f"{name} is not a key of a sweep file (use {one_of(allowed)})", file=path, key=key or None
            )


def _mapping(value: Any, path: Path, key: str) -> Mapping[Any, Any]:
    if plain(value) is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{plain(value)!r} is no mapping", file=path, key=key)
    return value
