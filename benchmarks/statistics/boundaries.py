"""Simulates the thresholds of `focal-lab sweep --until-decided`: focal_lab/report/statistics/boundaries.py.

python benchmarks/statistics/boundaries.py > boundaries.py      takes about 2 minutes on one core

Without an effect, differences between two cells are normal, and p_n is the one-sided p-value of their first
n. For each largest number of seeds N, it tabulates the quantiles of the minimum of p_n / w_n over n = 3 .. N.
Relative Monte Carlo error: 1.6 % at a level of 0.0005, 0.2 % at 0.025.
"""

import numpy as np
from scipy.special import stdtr

STUDIES, CHUNK, SEED = 4_000_000, 50_000, 20261127
LARGEST = (*range(4, 21), 22, 25, 30, 35, 40, 50)
LEVELS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 0.9)
# bins of the logarithm of the minimum
BINS, LEAST = 20_000, -20.0


def simulate() -> dict[int, np.ndarray]:
    """Histogram of the logarithm of the minimum of p_n / sqrt(n - 2), by largest number of seeds."""
    rng = np.random.default_rng(SEED)
    seeds = np.arange(1, max(LARGEST) + 1.0)
    found = {most: np.zeros(BINS) for most in LARGEST}
    for _ in range(STUDIES // CHUNK):
        values = rng.standard_normal((CHUNK, len(seeds)))
        sums, squares = values.cumsum(axis=1)[:, 2:], (values**2).cumsum(axis=1)[:, 2:]
        n = seeds[2:]
        error = np.sqrt((squares - sums**2 / n) / (n - 1) / n)
        below = stdtr(n - 1, sums / n / error)
        for p in (below, 1 - below):
            smallest = np.minimum.accumulate(np.log(np.maximum(p, 1e-12)) - np.log(n - 2) / 2, axis=1)
            for most in LARGEST:
                found[most] += np.histogram(smallest[:, most - 3], BINS, (LEAST, 0.0))[0]
    return found


def main() -> None:
    """Print the module."""
    print('"""Quantiles of the smallest weighted p-value of a sequential analysis; see `sequential`.')
    print('\nWritten by benchmarks/statistics/boundaries.py.\n"""\n')
    print(
        "# Largest number of seeds -> the minimum that is reached with each of the levels without an effect."
    )
    print(f"LEVELS = {LEVELS}")
    print("# fmt: off\nMINIMA = {")
    edges = np.linspace(LEAST, 0.0, BINS + 1)[1:]
    for most, counts in simulate().items():
        at = np.interp(np.array(LEVELS) * 2 * STUDIES, counts.cumsum(), edges)
        minima = np.exp(at + np.log(most - 2) / 2)
        words = [f"{minimum:.4g}" for minimum in minima]
        print(f"    {most}: ({', '.join(words[:7])},\n        {', '.join(words[7:])}),")
    print("}\n# fmt: on")


if __name__ == "__main__":
    main()
