"""Holm's correction for the number of comparisons in a report."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """P-values corrected for their number (Holm 1979).

    If each is compared with 0.05, the chance of one or more false positives is at most 5 %, however the tests
    depend on each other.
    """
    order = sorted(p_values, key=lambda name: p_values[name])
    corrected, highest = {}, 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
