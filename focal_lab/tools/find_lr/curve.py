"""The curve of a learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3)."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from focal_lab.errors import UserError

# The first losses are of weights that have hardly moved, the last ones of a network that falls apart.
SKIPPED_AT_FIRST, SKIPPED_AT_LAST = 10, 1
# Fewer points have no slope that could be told from noise.
LEAST_POINTS = 10
# Share of the running mean that a step keeps: a longer memory lags behind by a factor of two in the rate.
_MEMORY = 0.9


class Smoothed:
    """A running mean of losses that does not begin at zero, and the lowest that it has been."""

    def __init__(self) -> None:
        self.best = math.inf
        self._mean, self._weight = 0.0, 0.0

    def add(self, loss: float) -> float:
        """The mean after one more loss."""
        self._mean = _MEMORY * self._mean + (1 - _MEMORY) * loss
        self._weight = _MEMORY * self._weight + (1 - _MEMORY)
        value = self._mean / self._weight
        self.best = min(self.best, value)
        return value


@dataclass(frozen=True)
class Curve:
    """One point an optimizer step.

    Attributes:
        rates: learning rates, rising.
        losses: of each step, before it changed the weights.
        smoothed: their running mean.
        ended: why there are no more points.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    ended: str

    def steepest(self) -> int:
        """The point where the smoothed loss falls fastest over the logarithm of the rate.

        Raises:
            UserError: too few points, or a loss that falls nowhere.
        """
        points, last = len(self.rates), len(self.rates) - SKIPPED_AT_LAST
        if last - SKIPPED_AT_FIRST < LEAST_POINTS:
            what = (
                f"{points} finite losses are too few to see a slope" if points else "there is no finite loss"
            )
            raise UserError(f"{what}: {self.ended} (use a smaller --min_lr, or more --num_training)")
        looked = slice(SKIPPED_AT_FIRST, last)
        slopes = np.gradient(np.array(self.smoothed[looked]), np.log(self.rates[looked]))
        if not slopes.min() < 0:
            raise UserError("the loss falls nowhere: use a smaller --min_lr, or look at the data")
        return SKIPPED_AT_FIRST + int(slopes.argmin())

    def lowest(self) -> int:
        """The point of the lowest smoothed loss."""
        return int(np.argmin(self.smoothed))


def steps_between(lowest: float, highest: float, count: int) -> Iterator[float]:
    """So many learning rates, each the same factor above the one before."""
    return (lowest * (highest / lowest) ** (i / (count - 1)) for i in range(count))


def write_csv(curve: Curve, path: Path) -> None:
    """One row a step."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["lr", "loss", "smoothed_loss"])
        rows.writerows(zip(curve.rates, curve.losses, curve.smoothed, strict=True))


def draw(curve: Curve, chosen: int, path: Path) -> None:
    """The losses over the learning rate, with the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="0.75", linewidth=1, label="loss of each step")
    axes.plot(curve.rates, curve.smoothed, color="C0", label="smoothed")
    axes.plot(
        curve.rates[chosen], curve.smoothed[chosen], "o", color="C3", label=f"{curve.rates[chosen]:.2g}"
    )
    first = curve.smoothed[0]
    axes.set_ylim(top=1.2 * min(max(curve.smoothed), 2 * first))  # a network that falls apart hides the rest
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    figure.savefig(path, dpi=150)
