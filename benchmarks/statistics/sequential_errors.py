"""Simulates false verdicts of `focal-lab sweep --until-decided`, without futility: every look is taken.

python benchmarks/statistics/sequential_errors.py [STUDIES]     prints the tables of docs/statistics.md

Shape suffixes: S studies, C comparisons, N looks. Many studies are computed at once: p-values are those of
`focal_lab.report.statistics`, interpolated on grids. Takes about 3 minutes on one core.
"""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from focal_lab.report.statistics import sequential
from focal_lab.report.statistics.crossed import ALPHA, Estimate, critical_at

Array = NDArray[np.float64]
FIRST, SEED = sequential.FIRST_LOOK, 20261127
# shares of the test images in the variance of the last look's mean, and their number
SHARES, IMAGES = (0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0), 2000
# largest numbers of seeds, and levels: sides of the test, level
LARGEST, LEVELS = (4, 8, 16, 20, 50), ((1, 0.05), (2, 0.05), (2, 0.005), (2, 0.0005))
# levels of p-values, in falling order, and logarithms of weighted p-values
_GRID, _PLACES = np.append(1.0, np.geomspace(0.95, 1e-8, 90)), np.linspace(-25.0, 3.0, 3000)


def t_tests(values_N: Array) -> Array:
    """Two-sided p-values of the first 3, 4, ... values along the last axis."""
    n = np.arange(FIRST, values_N.shape[-1] + 1.0)
    means, variances = moments(values_N)
    found: Array = 2 * stdtr(n - 1, -np.abs(means) / np.sqrt(variances / n))
    return found


def moments(values_N: Array) -> tuple[Array, Array]:
    """Mean and variance of the first 3, 4, ... values along the last axis."""
    n = np.arange(1, values_N.shape[-1] + 1.0)[FIRST - 1 :]
    sums, squares = (
        values_N.cumsum(axis=-1)[..., FIRST - 1 :],
        (values_N**2).cumsum(axis=-1)[..., FIRST - 1 :],
    )
    return sums / n, np.maximum((squares - sums**2 / n) / (n - 1), 1e-20)


def crossed_tests(means_SN: Array, variances_SN: Array, noise: float) -> Array:
    """`crossed.two_sided` of many estimates, of which `noise` is the variance from test images."""
    found = np.zeros_like(means_SN)
    for look in range(means_SN.shape[1]):
        seeds = look + FIRST
        of_seeds_S = variances_SN[:, look] / seeds
        distance_S = np.abs(means_SN[:, look]) / np.sqrt(of_seeds_S + noise)
        share_S = of_seeds_S / (of_seeds_S + noise)
        place_S, before_S = np.zeros_like(distance_S), np.zeros_like(distance_S)
        for level in _GRID[1:]:
            limit_S = critical_at(level, seeds - 1, IMAGES - 1, share_S)
            place_S += np.clip((distance_S - before_S) / (limit_S - before_S), 0.0, 1.0)
            before_S = limit_S
        found[:, look] = np.exp(np.interp(place_S, np.arange(len(_GRID)), np.log(_GRID)))
    return found


def of_all_looks(p_values_N: Array, shares_N: Array, most: int) -> Array:
    """`sequential.one_sided` of many studies."""
    first, alone = sequential.weight(FIRST, most), [Estimate(FIRST, 0.0, 1.0, 1 / FIRST)]
    levels = np.log([sequential.one_sided([np.exp(place) * first], alone, most) for place in _PLACES])
    smallest = np.zeros(p_values_N.shape[:-1])
    for look in range(p_values_N.shape[-1]):
        p_value = np.log(p_values_N[..., look])
        weight = np.log(sequential.weight(look + FIRST, most))
        k = sequential.alikeness(shares_N[..., look], look + FIRST, most)
        smallest = np.minimum(smallest, (1 - k) * np.interp(p_value - weight, _PLACES, levels) + k * p_value)
    found: Array = np.exp(smallest)
    return found


def print_reports(studies: int) -> None:
    """Reports with a false difference, where there is none; cells share a baseline."""
    print(
        "| comparisons | at most 10 | at most 16 | at most 20 | looking from 3 to 10 seeds, uncorrected |"
        "\n|---:|---:|---:|---:|---:|"
    )
    rng = np.random.default_rng(SEED)
    for comparisons in (1, 3, 6):
        drawn_SCN = rng.standard_normal((studies, comparisons, 20)) - rng.standard_normal((studies, 1, 20))
        p_values_SCN = t_tests(drawn_SCN)
        rates = []
        for most in (10, 16, 20):
            looks = p_values_SCN[..., : most - FIRST + 1]
            # Holm's smallest p-value decides whether there is any
            smallest = 2 * of_all_looks(looks / 2, np.zeros_like(looks), most).min(axis=1)
            rates.append((smallest * comparisons < ALPHA).mean())
        rates.append((p_values_SCN[..., :8].min(axis=(1, 2)) < ALPHA).mean())
        print(f"| {comparisons} |{''.join(f' {rate:.1%} |' for rate in rates)}", flush=True)


def print_shares(studies: int) -> None:
    """Error rate over level, by share of the test images; and what it would be with k = 0."""
    columns = " | ".join(f"{share:g}" for share in SHARES)
    print(f"\n| at most | sides | level | {columns} |\n|{'---:|' * (3 + len(SHARES))}")
    for most in LARGEST:
        rates = np.array([error_rates(studies, most, share) for share in SHARES])
        lines = [(f"{sides} | {level:g}", rates[:, row, 0]) for row, (sides, level) in enumerate(LEVELS)]
        for name, of_shares in [*lines, ("2 | 0.05, k = 0", rates[:, 1, 1])]:
            cells = " | ".join(f"{rate:.2f}" for rate in of_shares)
            print(f"| {most} | {name} | {cells} |", flush=True)


def error_rates(studies: int, most: int, share: float) -> Array:
    """Error rates over their level, one line for each of `LEVELS`; in columns, as it is and with k = 0."""
    rng = np.random.default_rng(SEED + most)
    drawn_SN = rng.standard_normal((studies, most)) * np.sqrt((1 - share) * most)
    means_SN, variances_SN = moments(drawn_SN + rng.standard_normal((studies, 1)) * np.sqrt(share))
    halves_SN = crossed_tests(means_SN, variances_SN, share) / 2
    shares_SN = share / (share + variances_SN / most)
    # p-values of the tests that the mean is above, and below
    one_sided = [np.where(sign * means_SN > 0, halves_SN, 1 - halves_SN) for sign in (1, -1)]
    found = []
    for used_SN in (shares_SN, np.zeros_like(shares_SN)):
        above_S, below_S = (of_all_looks(p_values_SN, used_SN, most) for p_values_SN in one_sided)
        p_values = {1: np.append(above_S, below_S), 2: 2 * np.minimum(above_S, below_S)}
        found.append([(p_values[sides] < level).mean() / level for sides, level in LEVELS])
    return np.array(found).T


def main(arguments: Sequence[str]) -> None:
    """Print all tables."""
    studies = int(arguments[0]) if arguments else 100_000
    print_reports(studies)
    print_shares(studies)


if __name__ == "__main__":
    main(sys.argv[1:])
