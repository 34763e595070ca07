"""What the factors of a full grid do: main effects, interactions of two, and shares of the whole difference.

Each is a contrast, a weighted sum of rows. The weights of a contrast add up to 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Literal

from focal_lab.sweep.spec.shapley import opposite_levels, shapley_cells

# of a Contrast
Kind = Literal["main effect", "interaction", "share", "whole difference"]
Levels = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of rows.

    Attributes:
        levels: factor -> the level that it is about.
        references: the same factors -> the level that it is compared with.
        terms: weight and index of every row of the grid. Rows of weight 0 are listed, too: contrasts of the
            same rows have the same seeds, so that shares add up.
    """

    kind: Kind
    levels: dict[str, str]
    references: dict[str, str]
    terms: tuple[tuple[float, int], ...]


def full_grid(rows: Sequence[Mapping[str, str]]) -> Levels | None:
    """Factor -> levels in the rows' order, if the rows are all combinations of them, each once.

    Args:
        rows: factor -> label; all have the same factors.
    """
    if not rows:
        return None
    levels = {factor: tuple(dict.fromkeys(row[factor] for row in rows)) for factor in rows[0]}
    different = {tuple(row[factor] for factor in levels) for row in rows}
    return levels if len(rows) == len(different) == prod(map(len, levels.values())) else None


def contrasts(
    rows: Sequence[Mapping[str, str]],
    levels: Mapping[str, Sequence[str]],
    references: Mapping[str, str],
    most_interactions: int,
) -> Iterator[Contrast]:
    """The effects of all factors with several levels, in the order of `Kind`.

    Args:
        rows: of a full grid, factor -> label.
        levels: of the grid.
        references: factor -> the level that its other levels are compared with.
        most_interactions: if there were more, none are given.
    """
    others = {
        factor: [level for level in labels if level != references[factor]]
        for factor, labels in levels.items()
        if len(labels) > 1
    }
    for factor in others:
        for level in others[factor]:
            yield _factorial("main effect", {factor: level}, rows, levels, references)
    pairs = [
        {first: one, second: other}
        for first, second in combinations(others, 2)
        for one in others[first]
        for other in others[second]
    ]
    if len(pairs) <= most_interactions:
        for chosen in pairs:
            yield _factorial("interaction", chosen, rows, levels, references)
    yield from _shares(list(others), rows, levels, references)


def _factorial(
    kind: Kind,
    chosen: dict[str, str],
    rows: Sequence[Mapping[str, str]],
    levels: Mapping[str, Sequence[str]],
    references: Mapping[str, str],
) -> Contrast:
    """The difference (of differences) between levels and references, averaged over the other factors."""
    averaged = prod(len(labels) for factor, labels in levels.items() if factor not in chosen)
    terms = []
    for place, row in enumerate(rows):
        signs = [
            (row[factor] == level) - (row[factor] == references[factor]) for factor, level in chosen.items()
        ]
        terms.append((prod(signs) / averaged, place))
    return Contrast(kind, chosen, {factor: references[factor] for factor in chosen}, tuple(terms))


def _shares(
    factors: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    levels: Mapping[str, Sequence[str]],
    references: Mapping[str, str],
) -> Iterator[Contrast]:
    """The Shapley value of each factor, and the whole difference that they add up to."""
    places = {tuple(row[factor] for factor in levels): place for place, row in enumerate(rows)}
    start = {factor: references[factor] for factor in levels}
    end = opposite_levels(levels, start)
    for factor in factors:
        weights = dict.fromkeys(range(len(rows)), 0.0)
        for weight, labels in shapley_cells(factor, start, end):
            weights[places[tuple(labels.values())]] += weight
        yield Contrast("share", {factor: end[factor]}, {factor: start[factor]}, _terms(weights))
    weights = dict.fromkeys(range(len(rows)), 0.0)
    weights[places[tuple(end.values())]] += 1.0
    weights[places[tuple(start.values())]] -= 1.0
    varied_end, varied_start = ({factor: cell[factor] for factor in factors} for cell in (end, start))
    yield Contrast("whole difference", varied_end, varied_start, _terms(weights))


def _terms(weights: Mapping[int, float]) -> tuple[tuple[float, int], ...]:
    return tuple((weight, place) for place, weight in weights.items())
