"""Verdicts of a sequential analysis: one look decides, and all seeds must agree with it."""

from typing import Any

import pytest

from focal_lab.report.statistics.crossed import Estimate
from focal_lab.report.table.decide import Question, decide
from focal_lab.sweep.spec.columns import COLUMNS


class Looks:
    """Estimates by the number of seeds: the mean of the last look, and that of the earlier ones."""

    def __init__(self, earlier: float, last: float, seeds: int = 6) -> None:
        self.earlier, self.last, self.seeds = earlier, last, seeds

    def estimate(
        self, terms: Any, column: Any, constant: float = 0.0, most_seeds: int | None = None
    ) -> Estimate:
        n = min(self.seeds, most_seeds or self.seeds)
        return Estimate(n, self.last if n == self.seeds else self.earlier, 0.05, 0.05**2 / n)


def verdict(looks: Looks, asked: Any = "better") -> str:
    question = Question(COLUMNS["top1"], [(1.0, 1), (-1.0, 0)], 0.0, asked, 0.5)
    units: Any = looks
    (found,) = decide([question], units, 10)
    return found.verdict


@pytest.mark.parametrize(
    ("earlier", "last", "asked", "found"),
    [
        (5.0, 4.9, "better", "better"),
        (-5.0, -4.9, "better", "worse"),
        (5.0, -0.01, "better", "inconclusive"),  # the row shows -0.01
        (5.0, 4.9, "above", "supported"),
        (5.0, -0.01, "above", "inconclusive"),
        (0.01, 0.02, "same", "supported"),
        (0.01, 0.52, "same", "inconclusive"),
        (5.0, 4.9, "same", "contradicted"),
    ],
)
def test_all_seeds_agree_with_the_look_that_decides(
    earlier: float, last: float, asked: str, found: str
) -> None:
    assert verdict(Looks(earlier, last), asked) == found
