"""The effects of a sweep's factors, if its rows are all combinations of several factors' levels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isclose

import numpy as np

from focal_lab.report.statistics.effects import Levels, contrasts, full_grid
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.records import Effect, Row, shown_label
from focal_lab.report.table.test_sets import same_tests
from focal_lab.report.table.test_units import TestUnits
from focal_lab.report.table.variance_sources import seed_factors
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import MAIN, Column
from focal_lab.sweep.spec.shapley import reference_levels
from focal_lab.sweep.spec.sweep_file import Sweep
from focal_lab.utils.units import many

# A contrast reads every run, so that very large grids would take longer than the rest of a report.
MOST_CELLS, MOST_INTERACTIONS = 256, 60
# Lines below a table; JSON has all effects.
_MOST_LINES = 12


def factor_effects(
    rows: Sequence[Row],
    columns: Sequence[Column],
    results: Mapping[str, Result],
    sweep: Sweep,
    units: TestUnits,
) -> tuple[Effect, ...]:
    """The effects on the main metric of each task, from the seeds that all cells have.

    None for a task whose runs were tested on different images, and, as for rows, where rows have different
    data and the sweep names no baseline.
    """
    own = [index for index, row in enumerate(rows) if not row.reference]
    levels = full_grid([rows[index].labels for index in own])
    if levels is None or len(own) > MOST_CELLS or sum(len(labels) > 1 for labels in levels.values()) < 2:
        return ()
    if seed_factors(rows):  # their levels are a sample
        return ()
    if len({rows[index].data for index in own}) > 1 and not sweep.baseline:
        return ()
    references = reference_levels(levels, sweep.baseline)
    found: list[Effect] = []
    for column in columns:
        grid = [rows[index] for index in own]
        if column.key in MAIN.values() and same_tests(grid, column.task or "", results):
            found += _with_percent(list(_effects(own, rows, levels, references, column, units)))
    return tuple(found)


def _effects(
    own: Sequence[int],
    rows: Sequence[Row],
    levels: Levels,
    references: Mapping[str, str],
    column: Column,
    units: TestUnits,
) -> Iterator[Effect]:
    labels = [rows[index].labels for index in own]
    asked = list(contrasts(labels, levels, references, MOST_INTERACTIONS))
    weights_CR = np.array([[weight for weight, _ in contrast.terms] for contrast in asked])
    for contrast, found in zip(asked, units.estimates(weights_CR, own, column), strict=True):
        if found.mean is not None:
            yield Effect(
                metric=column.key,
                kind=contrast.kind,
                levels=contrast.levels,
                references=contrast.references,
                n=found.n,
                difference=found.mean,
                half_width=found.half_width,
                images=found.units,
            )


def _with_percent(effects: Sequence[Effect]) -> list[Effect]:
    """The effects, with shares in percent if the interval of the whole difference does not contain 0."""
    whole = next((effect for effect in effects if effect.kind == "whole difference"), None)
    if whole is None or not whole.half_width or whole.n < LEAST_SEEDS:
        return list(effects)
    if abs(whole.difference) <= whole.half_width:
        return list(effects)
    return [
        replace(effect, percent=100 * effect.difference / whole.difference)
        if effect.kind in ("share", "whole difference")
        else effect
        for effect in effects
    ]


def shown_effects(effects: Sequence[Effect]) -> tuple[list[Effect], int]:
    """Those of one metric that fit below a table, and how many are left out, interactions first.

    Of two factors with two levels, shares equal the main effects, which then have the percentage.
    """
    kinds: dict[str, list[Effect]] = {}
    for effect in effects:
        kinds.setdefault(effect.kind, []).append(effect)
    main, shares = kinds.get("main effect", []), kinds.get("share", [])
    if len(main) == len(shares) and all(map(_equal, main, shares)):
        main = [replace(effect, percent=share.percent) for effect, share in zip(main, shares, strict=True)]
        shares = []
    ends = [*shares, *kinds.get("whole difference", [])]
    interactions = kinds.get("interaction", [])
    shown = [*main[: max(1, _MOST_LINES - len(ends))], *ends]
    if len(shown) + len(interactions) <= _MOST_LINES:
        return [*main, *interactions, *ends], 0
    return shown, len(main) + len(interactions) + len(ends) - len(shown)


def _equal(effect: Effect, share: Effect) -> bool:
    widths = (effect.half_width or 0.0, share.half_width or 0.0)
    return (
        effect.levels == share.levels
        and isclose(effect.difference, share.difference, rel_tol=1e-9, abs_tol=1e-9)
        and isclose(*widths, rel_tol=1e-6, abs_tol=1e-9)
    )


def shown_levels(effect: Effect, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """References and levels as tables show them."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        for item in row.labels.items():
            first.setdefault(item, row)
    references, levels = (
        [shown_label(first[item], item[0]) or item[1] for item in labels.items()]
        for labels in (effect.references, effect.levels)
    )
    return references, levels


def level_words(effect: Effect, rows: Sequence[Row]) -> str:
    """`7 to 14`, of an interaction `Swin-Tiny to Focal-Tiny, 7 to 14`, of cells `Swin-Tiny / 7 to ...`."""
    references, levels = shown_levels(effect, rows)
    if effect.kind == "whole difference":
        return f"{' / '.join(references)} to {' / '.join(levels)}"
    pairs = zip(references, levels, strict=True)
    return ", ".join(f"{reference} to {level}" for reference, level in pairs)


def effect_notes(effects: Sequence[Effect]) -> Iterator[str]:
    """What a reader must know about the effects of a table."""
    if not effects:
        return
    yield (
        "Effects of the factors: from the seeds that all cells have. Main effect: averaged over the other "
        "factors; interaction: how much one factor changes the other's effect; share: what changing the "
        "factor adds to the whole difference, averaged over all orders of changing the factors (Shapley "
        "value). Their intervals are not corrected for several comparisons; a claim about an effect, under "
        "expect, is."
    )
    metrics = dict.fromkeys(effect.metric for effect in effects)
    hidden = sum(shown_effects([e for e in effects if e.metric == metric])[1] for metric in metrics)
    if hidden:
        yield f"{many(hidden, 'more effect')}, such as interactions of many levels: --format json."
    if not any(effect.kind == "interaction" for effect in effects):
        yield f"Interactions: more than {MOST_INTERACTIONS}, not estimated."
    if all(effect.percent is None for effect in effects):
        yield "Shares have no percentage: the interval of the whole difference has 0 in it, or none is known."
