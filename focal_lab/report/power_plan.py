"""What a planned sweep can detect: for each metric, by the seeds of the plan, and the seeds that it needs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.statistics import sequential
from focal_lab.report.statistics.crossed import ALPHA
from focal_lab.report.statistics.power import MOST_SEEDS, POWER, Spread, detectable, seeds_needed
from focal_lab.report.table.build import build_table
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.records import Outcome, Table
from focal_lab.sweep.identity.run_ids import hash_of
from focal_lab.sweep.plan.manifest import seedless_identity
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.spec.columns import COLUMNS, Column
from focal_lab.utils.text_table import TextColumn, aligned
from focal_lab.utils.units import many

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

# Standard deviation between seeds of the difference of two cells, in points, where no run tells: between the
# digits suite's (1 to 2) and ImageNet's (0.1 to 0.3); losses by the ratio of the metrics' margins.
ASSUMED_SD = 1.0
_NOTHING = "–"  # noqa: RUF001  (as in reports)


@dataclass(frozen=True)
class MetricPower:
    """Power of the comparisons of one metric.

    Attributes:
        metric: key of the column.
        seed_sd: standard deviation between seeds of the difference of two cells, in the metric's unit.
        image_error: standard error of such a difference from the test images; None if it is unknown.
        source: what both are from.
        seeds: of the plan.
        sequential: whether they are the largest number of a sequential analysis.
        comparisons: for which p-values are corrected.
        level: of each test; of a sequential analysis that of the last look.
        detectable: the true difference that these seeds find with 80 %; None if they are too few.
        difference: what one wants to find.
        seeds_needed: seeds that find it with 80 %; None if 1,000 do not.
        images_suffice: whether any number of seeds would.
    """

    metric: str
    seed_sd: float
    image_error: float | None
    source: str
    seeds: int
    sequential: bool
    comparisons: int
    level: float
    detectable: float | None
    difference: float
    seeds_needed: int | None
    images_suffice: bool


def metric_powers(plan: "Plan", out: Path, difference: float | None = None) -> list[MetricPower]:
    """The power of each metric of a sweep that is compared.

    Args:
        plan: of the sweep.
        out: folder of the runs, which tell standard deviations.
        difference: what one wants to find, in points; None for each metric's margin, as for losses.
    """
    table = build_table(plan, out)
    comparisons = max(1, table.asked)
    found = []
    for column in table.columns:
        outcomes = _outcomes(table, column)
        if not outcomes or column.margin is None:
            continue
        spread, source = _spread(plan, out, column, outcomes)
        wanted = plan.sweep.margin(column.key) if difference is None or not column.in_points else difference
        seeds = len(plan.sweep.seeds)
        level = ALPHA / comparisons
        if plan.max_seeds is not None:
            share = sequential.image_share(spread.per_seed, spread.images, plan.max_seeds)
            level = 2 * sequential.threshold(level / 2, plan.max_seeds, share)
        found.append(
            MetricPower(
                metric=column.key,
                seed_sd=sqrt(spread.per_seed),
                image_error=sqrt(spread.images) if spread.units else None,
                source=source,
                seeds=seeds,
                sequential=plan.max_seeds is not None,
                comparisons=comparisons,
                level=level,
                detectable=detectable(spread, seeds, level) if seeds >= LEAST_SEEDS else None,
                difference=wanted,
                seeds_needed=seeds_needed(wanted, spread, level),
                images_suffice=seeds_needed(wanted, Spread(0.0, spread.images, spread.units), level)
                is not None,
            )
        )
    return found


def power_text(powers: Sequence[MetricPower], width: int | None) -> str:
    """The same as a table with a heading."""
    if not powers:
        return "Power: the sweep compares nothing\n"
    first = powers[0]
    rows = [(COLUMNS[power.metric], power) for power in powers]
    table = [
        TextColumn("metric", [column.title for column, _ in rows]),
        TextColumn(
            "sd between seeds", [_number(power.seed_sd, column) for column, power in rows], right=True
        ),
        TextColumn(
            "test images",
            [
                _NOTHING if power.image_error is None else f"± {_number(power.image_error, column)}"
                for column, power in rows
            ],
            right=True,
        ),
        TextColumn("from", [power.source for _, power in rows], folds=True),
        TextColumn(
            f"{many(first.seeds, 'seed')} detect{'s' * (first.seeds == 1)}",
            [_detects(*row) for row in rows],
            right=True,
        ),
        TextColumn("seeds needed", [_needed(power) for _, power in rows], folds=True),
    ]
    heading = (
        f"Power: what is found with {100 * POWER:.0f} % at 5 % for {many(first.comparisons, 'comparison')} "
        "(the first step of Holm's correction); spreads are of the difference of two cells."
    )
    if first.sequential:
        heading += " Of --until-decided: what its last look finds."
    return f"{heading}\n{aligned(table, width)}"


def _outcomes(table: Table, column: Column) -> list[Outcome]:
    """Those of a metric: rows against their baselines, or of a table without any the parts of the claim."""
    compared = [row.entries[column.key].compared for row in table.rows]
    rows: list[Outcome] = [found for found in compared if found is not None]
    return rows or [answer for answer in table.answers if answer.metric == column.key]


def _spread(plan: "Plan", out: Path, column: Column, outcomes: Iterable[Outcome]) -> tuple[Spread, str]:
    """Of the sweep's own comparisons, else of other runs of the suite, else assumed; and which of these."""
    known = [found for found in outcomes if found.sd]  # without spread nothing is known about it
    if known:
        freedom = sum(found.n - 1 for found in known)
        per_seed = sum((found.n - 1) * (found.sd or 0.0) ** 2 for found in known) / freedom
        with_images = [found for found in known if found.images]
        images = sum(found.image_error**2 for found in with_images) / max(1, len(with_images))
        units = min((found.images for found in with_images), default=0)
        return Spread(per_seed, images, units), f"{many(len(known), 'comparison')} of this sweep"
    variances = list(_variances(plan, out, column))
    if variances:
        freedom = sum(count for count, _ in variances)
        per_seed = 2 * sum(count * variance for count, variance in variances) / freedom
        return Spread(per_seed, 0.0, 0), f"{len(variances)} other networks on {plan.suite}, not paired"
    assumed = ASSUMED_SD if column.in_points else ASSUMED_SD * (column.margin or 0.0) / 0.5
    return Spread(assumed**2, 0.0, 0), "assumed: no run tells"


def _variances(plan: "Plan", out: Path, column: Column) -> Iterator[tuple[int, float]]:
    """Degrees of freedom and variance between seeds of other finished networks with the plan's data."""
    planned = {(run.task, hash_of(run.identity.get("data"))) for run in plan.runs}
    values: dict[str, list[float]] = defaultdict(list)
    for folder in run_folders(out):
        result = read_outcome(folder).result
        if result is None or result.task != column.task or column.key not in result.metrics:
            continue
        if (result.task, hash_of(result.identity.get("data"))) in planned:
            values[seedless_identity(result.identity)].append(result.metrics[column.key])
    for found in values.values():
        if len(set(found)) > 1:
            mean = sum(found) / len(found)
            yield len(found) - 1, sum((value - mean) ** 2 for value in found) / (len(found) - 1)


def _number(value: float, column: Column) -> str:
    return f"{value:.{column.digits + 1}f}"


def _detects(column: Column, power: MetricPower) -> str:
    return _NOTHING if power.detectable is None else _number(power.detectable, column)


def _needed(power: MetricPower) -> str:
    wanted = f"{power.difference:g}"
    if power.seeds_needed is not None:
        return f"{power.seeds_needed} for {wanted}"
    if not power.images_suffice:
        return f"no number for {wanted}: too few test images"
    return f"more than {MOST_SEEDS} for {wanted}"
