"""Sources of variance: what initial weights, order and training images each change, by a sweep over seeds.

Levels of such a factor are a sample. Rows that differ in one are therefore not compared with each other.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf, sqrt

from focal_lab.report.statistics.variance import RESIDUAL, Component, variance_components
from focal_lab.report.table.records import Row, Source
from focal_lab.report.table.test_units import TestUnits
from focal_lab.sweep.plan.settings import SEEDS
from focal_lab.sweep.spec.columns import MAIN, Column
from focal_lab.utils.units import many

# the run's own seed, where several vary beside those of parts
SEED = "seed"
REST, IMAGES = "rest", "test images"
_TAIL = 0.025


def seed_factors(rows: Sequence[Row]) -> list[str]:
    """The factors with several levels that are seeds of a part of a run."""
    names = dict.fromkeys(factor for row in rows for factor in row.labels if factor in SEEDS)
    return [name for name in names if len({row.labels.get(name) for row in rows if not row.reference}) > 1]


def variance_sources(
    rows: Sequence[Row], columns: Sequence[Column], units: TestUnits
) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """The sources of each task's main metric, for each combination of the other factors, and notes.

    Nothing for sweeps with fewer than two seeds that vary; of an unfinished one, a note.
    """
    seeds = seed_factors(rows)
    own = [index for index, row in enumerate(rows) if not row.reference]
    several = len({run.seed for index in own for run in rows[index].runs}) > 1
    if len(seeds) + several < 2 or not seeds:
        return (), ()
    cells: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for index in own:
        others = {name: label for name, label in rows[index].labels.items() if name not in seeds}
        cells[tuple(others.items())].append(index)
    found: list[Source] = []
    missing = 0
    for column in columns:
        if column.key not in MAIN.values():
            continue
        for labels, indices in cells.items():
            entries = [rows[index].entries[column.key] for index in indices]
            missing += sum(entry.planned - entry.n for entry in entries)
            if all(entry.n == entry.planned > 0 for entry in entries):
                found += _sources(dict(labels), indices, seeds, several, rows, column, units)
    notes = []
    if missing:
        notes.append(
            f"Sources of variance: shown when a cell has all its runs; {many(missing, 'run')} to go."
        )
    if found:
        notes.append(_explained(found))
    return tuple(found), tuple(notes)


def _sources(
    labels: dict[str, str],
    indices: Sequence[int],
    seeds: Sequence[str],
    several: bool,
    rows: Sequence[Row],
    column: Column,
    units: TestUnits,
) -> Iterator[Source]:
    """Those of one cell; nothing if its runs are not all combinations of the seeds."""
    values: list[tuple[Mapping[str, str], float]] = []
    for index in indices:
        row = rows[index]
        for seed, value in row.entries[column.key].values.items():
            own_seed = {SEED: str(seed)} if several else {}
            values.append(({name: row.labels[name] for name in seeds} | own_seed, value))
    try:
        found = variance_components(values)
    except ValueError:  # seeds that were excluded
        return
    for component in found.components:
        yield _source(labels, component, column, len(values))
    variance, count = units.image_variance(indices, column)
    if count > 1:
        low, high = _chi_square_limits(variance, count - 1)
        yield Source(column.key, labels, IMAGES, len(values), sqrt(variance), low, high)


def _source(labels: dict[str, str], component: Component, column: Column, runs: int) -> Source:
    name = REST if component.effect == RESIDUAL else ", ".join(component.effect)
    limits = (component.share, component.share_low, component.share_high)
    percent, low, high = (None if share is None else 100 * share for share in limits)
    return Source(
        metric=column.key,
        labels=labels,
        source=name,
        runs=runs,
        sd=component.sd,
        sd_low=sqrt(component.low),
        sd_high=sqrt(component.high),
        percent=percent,
        percent_low=low,
        percent_high=high,
    )


def _chi_square_limits(variance: float, freedom: int) -> tuple[float, float]:
    """95 % interval of a standard deviation, given the estimated variance."""
    from scipy.special import chdtri  # scipy takes a third of a second to import

    quantiles = (float(chdtri(freedom, tail)) for tail in (_TAIL, 1 - _TAIL))
    low, high = (sqrt(variance * freedom / quantile) if quantile else inf for quantile in quantiles)
    return low, high


def _explained(found: Sequence[Source]) -> str:
    text = (
        "Sources of variance: standard deviation between runs that differ in that seed alone, with 95 % "
        "intervals; shares are of the variance between runs. Rest: interactions of the seeds, and what no "
        "seed controls."
    )
    if any(source.source == IMAGES for source in found):
        text += (
            " Test images: what another test set of this size would change in all runs alike, in addition."
        )
    return f"{text} Rows that differ in such a seed are a sample and are not compared with each other."
