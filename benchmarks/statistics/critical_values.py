"""Error rates of candidate critical values for a mean whose variance has two parts, by numerical integration.

The part of the seeds is estimated with n - 1 degrees of freedom, the part of the test images is known; both
are normal. Printed is the error rate over alpha, the largest for any share of the seeds in the variance: 1.00
is exact, above is too often. The exponent in `focal_lab.report.statistics.crossed.critical_at` was chosen by
it.

    python benchmarks/statistics/critical_values.py
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, stdtrit

from focal_lab.report.statistics.crossed import critical_at

Array = NDArray[np.float64]
LEVELS = (0.2, 0.1, 0.05, 0.01, 0.005, 0.001)
SEEDS = (3, 4, 5, 10, 20)
_SHARES = np.linspace(0.02, 0.998, 60)[:, None]
_TAILS = (np.arange(8000) + 0.5) / 8000
# many enough that their part counts as known
_UNITS = 10**7
Critical = Callable[[float, int, Array], Array]


def satterthwaite(alpha: float, freedom: int, share: Array) -> Array:
    """Student's quantile with Satterthwaite's degrees of freedom."""
    return np.asarray(stdtrit(np.minimum(freedom / share**2, 1e9), 1 - alpha / 2))


def weighted(alpha: float, freedom: int, share: Array) -> Array:
    """Quantiles of the two parts, squared and weighted by their share of the variance (never too small)."""
    of_seeds, of_images = stdtrit(freedom, 1 - alpha / 2), stdtrit(_UNITS, 1 - alpha / 2)
    return np.sqrt(of_images**2 + (of_seeds**2 - of_images**2) * share)


def ours(alpha: float, freedom: int, share: Array) -> Array:
    """The one that reports use."""
    return np.asarray(critical_at(alpha, freedom, _UNITS, share))


def error_rates(critical: Critical, alpha: float, freedom: int) -> Array:
    """Error rate for each true share of the seeds in the variance."""
    from_seeds = _SHARES * chdtri(freedom, _TAILS) / freedom
    variance = from_seeds + 1 - _SHARES
    limits = critical(alpha, freedom, from_seeds / variance) * np.sqrt(variance)
    return np.asarray(np.mean(2 * ndtr(-limits), axis=1))


def main() -> None:
    """Print a Markdown table."""
    names = {"Satterthwaite": satterthwaite, "weighted": weighted, "ours": ours}
    print("| method | seeds | " + " | ".join(f"{level:g}" for level in LEVELS) + " |")
    print("|---|---:|" + "---:|" * len(LEVELS))
    for name, critical in names.items():
        for seeds in SEEDS:
            worst = [error_rates(critical, level, seeds - 1).max() / level for level in LEVELS]
            print(f"| {name} | {seeds} | " + " | ".join(f"{ratio:.2f}" for ratio in worst) + " |")


if __name__ == "__main__":
    main()
