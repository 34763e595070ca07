"""Intervals of a proportion, for the share of seeds that succeed."""

from math import sqrt

from focal_lab.report.statistics.crossed import ALPHA


def wilson(successes: int, trials: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion, which is right for few trials, also if all succeed.

    Args:
        successes: of the trials, 0 to `trials`.
        trials: 1 or more.
    """
    from scipy.special import ndtri

    z = float(ndtri(1 - alpha / 2))
    share = successes / trials
    center = share + z * z / (2 * trials)
    spread = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (center - spread) / scale, (center + spread) / scale
    # exact ends, which rounding would miss
    return (0.0 if successes == 0 else low, 1.0 if successes == trials else high)
