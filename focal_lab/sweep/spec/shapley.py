"""Shapley values of a full grid: each factor's share of the difference between two opposite cells.

Changing the factors one after the other leads from the reference cell to the opposite one. A factor's value
(Shapley 1953) is the difference that changing it makes, averaged over all orders; the values add up to the
whole difference.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

# weight, and the labels of its cell: factor -> label
WeightedCells = list[tuple[float, dict[str, str]]]


def reference_levels(
    levels: Mapping[str, Sequence[str]], baseline: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Factor -> the level that the others are compared with: the baseline's, if it has one, or the first.

    Args:
        levels: factor -> labels.
        baseline: factor -> label -> the baseline's label, as in a `Sweep`.
    """
    found = {}
    for factor, labels in levels.items():
        named = set(baseline.get(factor, {}).values()) & set(labels)
        found[factor] = named.pop() if len(named) == 1 else labels[0]
    return found


def opposite_levels(levels: Mapping[str, Sequence[str]], references: Mapping[str, str]) -> dict[str, str]:
    """Factor -> its last level other than the reference; the reference of a factor with one level."""
    return {
        factor: next((label for label in reversed(labels) if label != references[factor]), references[factor])
        for factor, labels in levels.items()
    }


def shapley_cells(factor: str, references: Mapping[str, str], opposites: Mapping[str, str]) -> WeightedCells:
    """The cells whose weighted sum is the Shapley value of a factor.

    Args:
        factor: one that has two levels or more.
        references, opposites: factor -> label, of the two cells whose difference is divided.
    """
    others = [name for name in references if name != factor and references[name] != opposites[name]]
    count = len(others) + 1
    found: WeightedCells = []
    for size in range(count):
        # the share of the orders in which just these factors are changed before this one
        weight = factorial(size) * factorial(count - size - 1) / factorial(count)
        for changed in combinations(others, size):
            before = dict(references) | {name: opposites[name] for name in changed}
            found += [(weight, before | {factor: opposites[factor]}), (-weight, before)]
    return found
