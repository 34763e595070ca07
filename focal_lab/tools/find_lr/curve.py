"""Loss curve of a learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3).

A curve is a data frame with a row per optimizer step, and the columns lr, loss and smoothed_loss.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from focal_lab.errors import UserError

# At first the weights have hardly changed, and at last the loss diverges.
SKIPPED_AT_FIRST, SKIPPED_AT_LAST = 10, 1
# With fewer points a slope cannot be distinguished from noise.
LEAST_POINTS = 10
# A longer average lags behind by a factor of two in the rate.
_DECAY = 0.9


def make_curve(rates: Sequence[float], losses: Sequence[float]) -> pd.DataFrame:
    """The curve of as many steps as there are losses, smoothed by an exponential running mean."""
    curve = pd.DataFrame({"lr": list(rates)[: len(losses)], "loss": losses}, dtype=float)
    return curve.assign(smoothed_loss=curve["loss"].ewm(alpha=1 - _DECAY).mean())


def steepest(curve: pd.DataFrame, ended: str) -> int:
    """The step where the smoothed loss falls fastest over the logarithm of the rate.

    Raises:
        UserError: too few points, or a loss that never falls.
    """
    inner = curve.iloc[SKIPPED_AT_FIRST : len(curve) - SKIPPED_AT_LAST]
    if len(inner) < LEAST_POINTS:
        what = f"{len(curve)} finite losses are too few for a slope" if len(curve) else "no loss is finite"
        raise UserError(f"{what}: {ended} (use a smaller --min-lr, or a larger --num-training)")
    slopes = np.gradient(inner["smoothed_loss"], np.log(inner["lr"]))
    if not slopes.min() < 0:
        raise UserError("the loss never falls: use a smaller --min-lr, or check the data")
    return SKIPPED_AT_FIRST + int(slopes.argmin())


def plot(curve: pd.DataFrame, chosen: int, path: Path) -> None:
    """Plot the losses over the learning rate, with the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rates, smoothed = curve["lr"], curve["smoothed_loss"]
    axes.plot(rates, curve["loss"], color="0.75", linewidth=1, label="loss of each step")
    axes.plot(rates, smoothed, color="C0", label="smoothed")
    axes.plot(rates[chosen], smoothed[chosen], "o", color="C3", label=f"{rates[chosen]:.2g}")
    axes.set_ylim(top=1.2 * min(smoothed.max(), 2 * smoothed[0]))  # a diverged loss would hide the rest
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    figure.savefig(path, dpi=150)
