"""Variance components of a crossed design, such as the seeds of initial weights, order and data. NumPy only.

Model: value = mean + one random effect of each factor + one of each interaction that is separated + residual,
all independent with a variance each. The residual has what is left: the interactions that are not separated,
and whatever no factor controls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_DRAWS = 50_000  # the limits then move by 2 % from one set of draws to another
_SEED = 21

Array = NDArray[np.float64]
Effect = tuple[str, ...]
RESIDUAL: Effect = ()


@dataclass(frozen=True)
class Component:
    """The variance that one effect adds to a value, in squared units of the values.

    Attributes:
        effect: the factor, the factors of an interaction, or `RESIDUAL`.
        variance: the estimate, 0 if it was negative.
        negative: whether it was: the effect is then small beside the residual, or absent.
        low, high: 95 % interval of the variance.
        share: of the sum of all components, 0 to 1; None if all values are equal.
        share_low, share_high: 95 % interval of the share; None as `share`.
        freedom: degrees of freedom of the effect's mean square.
    """

    effect: Effect
    variance: float
    negative: bool
    low: float
    high: float
    share: float | None
    share_low: float | None
    share_high: float | None
    freedom: int

    @property
    def sd(self) -> float:
        """Standard deviation, in units of the values."""
        return float(np.sqrt(self.variance))


@dataclass(frozen=True)
class Decomposition:
    """All components: factors in the order of the design, then interactions, then the residual.

    Attributes:
        mean: of all values.
        total: sum of the components, the variance of a value when every seed is drawn again.
    """

    count: int
    mean: float
    total: float
    components: tuple[Component, ...]


def variance_components(
    values: Sequence[tuple[Mapping[str, str], float]], *, interactions: bool = False
) -> Decomposition:
    """Estimate the variance components of a crossed design with one value per combination of labels.

    Estimates are those of the analysis of variance (method of moments): expected mean squares, solved for the
    variances. They are unbiased before negative ones are set to 0, and equal REML's where none is negative.
    Intervals are generalised ones (Weerahandi 1993, J. Am. Stat. Assoc. 88): each sum of squares is divided
    by draws of its chi-square, the equations are solved for every draw, negative variances are set to 0, and
    the interval is between the 2.5 and 97.5 percentiles; likewise for shares. A fixed seed makes them the
    same in every call. They assume normal effects. With two or three levels they are very wide, and shares
    of factors without any effect are overestimated: look at the lower limits.

    Args:
        values: labels, factor -> level, and the value: `(cell.labels, metric)` of each run of a sweep, in any
            order. Every combination of the levels that occur must be there once.
        interactions: whether interactions of fewer than all factors have components of their own. Without,
            they are in the residual, and of three factors or more each pair's variance also raises both
            factors' estimates by a part of it.

    Raises:
        ValueError: fewer than two factors, a factor with one level, other factors in some rows, a combination
            that is missing or repeated, or a value that is not finite.
    """
    table, factors = _as_array(values)
    separated = _separated(factors, interactions)
    squares, freedom, expected = _analysis(table, factors, separated)
    estimates = np.linalg.solve(expected, squares / freedom)
    # rounding leaves some 1e-30 where the values are exactly additive, or all equal
    tiny = 1e-12 * float(np.abs(squares / freedom).max())
    variances = np.where(estimates > tiny, estimates, 0.0)
    total = float(variances.sum())
    chi_squares = np.random.default_rng(_SEED).chisquare(freedom, (_DRAWS, len(freedom)))
    drawn = np.linalg.solve(expected, (squares / chi_squares).T).clip(min=0.0)
    sums = drawn.sum(axis=0)
    shares = drawn / np.where(sums > 0, sums, 1.0)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(drawn, tails, axis=1)
    share_low, share_high = np.quantile(shares, tails, axis=1)
    components = tuple(
        Component(
            effect=effect,
            variance=float(variances[i]),
            negative=bool(estimates[i] < -tiny),
            low=float(low[i]),
            high=float(high[i]),
            share=float(variances[i] / total) if total else None,
            share_low=float(share_low[i]) if total else None,
            share_high=float(share_high[i]) if total else None,
            freedom=int(freedom[i]),
        )
        for i, effect in enumerate([*separated, RESIDUAL])
    )
    return Decomposition(table.size, float(table.mean()), total, components)


def _as_array(values: Sequence[tuple[Mapping[str, str], float]]) -> tuple[Array, tuple[str, ...]]:
    """An array with one axis per factor, and the factors' names."""
    factors = tuple(values[0][0]) if values else ()
    if len(factors) < 2:
        raise ValueError(f"{len(factors)} factors are too few to separate one from the residual; use two")
    if any(labels.keys() != set(factors) for labels, _ in values):
        raise ValueError(f"not all values have the factors {', '.join(factors)}")
    levels = [list(dict.fromkeys(labels[name] for labels, _ in values)) for name in factors]
    for name, known in zip(factors, levels, strict=True):
        if len(known) < 2:
            raise ValueError(f"{name} has one level, {known[0]}; a variance needs two")
    table = np.full([len(known) for known in levels], np.nan)
    for labels, value in values:
        place = tuple(known.index(labels[name]) for name, known in zip(factors, levels, strict=True))
        cell = ", ".join(f"{name} {labels[name]}" for name in factors)
        if not np.isfinite(value):
            raise ValueError(f"{cell}: {value} is not a number to decompose")
        if not np.isnan(table[place]):
            raise ValueError(f"{cell} occurs twice")
        table[place] = value
    missing = np.argwhere(np.isnan(table))
    if len(missing):
        first = ", ".join(
            f"{name} {known[i]}" for name, known, i in zip(factors, levels, missing[0], strict=True)
        )
        raise ValueError(f"{len(missing)} of {table.size} combinations are missing, such as {first}")
    return table, factors


def _separated(factors: tuple[str, ...], interactions: bool) -> list[Effect]:
    """The effects that get a component of their own; that of all factors together is in the residual."""
    most = len(factors) - 1 if interactions else 1
    return [effect for size in range(1, most + 1) for effect in combinations(factors, size)]


def _analysis(
    table: Array, factors: tuple[str, ...], separated: Sequence[Effect]
) -> tuple[Array, Array, Array]:
    """Sums of squares, degrees of freedom, and what mean squares expect: rows of mean squares, columns of
    variances, the residual last in all."""
    sizes = dict(zip(factors, table.shape, strict=True))
    squares = [float((_effect(table, factors, effect) ** 2).sum()) for effect in separated]
    freedom = [prod(sizes[name] - 1 for name in effect) for effect in separated]
    everything = float(((table - table.mean()) ** 2).sum())
    squares.append(max(0.0, everything - sum(squares)))
    freedom.append(table.size - 1 - sum(freedom))
    expected = np.zeros((len(squares), len(squares)))
    for row, effect in enumerate(separated):
        for column, larger in enumerate(separated):
            if set(effect) <= set(larger):
                expected[row, column] = prod(sizes[name] for name in factors if name not in larger)
    expected[:, -1] = 1
    return np.array(squares), np.array(freedom, float), expected


def _effect(table: Array, factors: tuple[str, ...], effect: Effect) -> Array:
    """What the effect adds to each value: deviations along its factors of the means over the others."""
    found = table
    for axis, name in enumerate(factors):
        mean = found.mean(axis=axis, keepdims=True)
        found = found - mean if name in effect else np.broadcast_to(mean, found.shape)
    return found
