"""Simulates `focal-lab sweep --until-decided`: runs and power, beside 10 fixed seeds.

python benchmarks/statistics/until_decided.py [STUDIES]         prints the table of docs/statistics.md

A study compares one cell with its baseline; differences, and their spread between seeds, are in margins (the
largest difference that counts as none). Power is the share of studies that find the right verdict: equivalent
for a true difference of 0, better for 1 and 2. Decisions are those of focal_lab.report.statistics. AdaStop
(Mathieu et al. 2023) is the published group-sequential permutation test for two algorithms: 3 looks, each
after 5 more runs of both. sequential_errors.py has the false verdicts.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.statistics import sequential
from focal_lab.report.statistics.crossed import ALPHA, Estimate, equivalence, two_sided

Array = NDArray[np.float64]
EFFECTS, SPREADS, FIXED, MARGIN = (0.0, 1.0, 2.0), (0.5, 1.0, 2.0), 10, 1.0
# standard deviation of the difference over sets of test images that might have been drawn, and their number
IMAGE_NOISE, IMAGES = 0.3, 2000
SEED = 20261127


@dataclass(frozen=True)
class Ended:
    """A study: how many seeds it needed, and what it found."""

    seeds: int
    better: bool = False
    worse: bool = False
    equivalent: bool = False

    def right(self, effect: float) -> bool:
        """Whether it has the verdict that is true."""
        return self.better if effect else self.equivalent


def estimates(values: Array, noise: float) -> Iterator[Estimate]:
    """Of the first 3, 4, ... seeds."""
    units = IMAGES if noise else 0
    for n in range(sequential.FIRST_LOOK, len(values) + 1):
        sd = float(values[:n].std(ddof=1))
        yield Estimate(n, float(values[:n].mean()), sd, sd * sd / n, noise * noise, units)


def fixed(values: Array, noise: float) -> Ended:
    """A fixed number of seeds."""
    estimate = list(estimates(values[:FIXED], noise))[-1]
    differs = two_sided(estimate) < ALPHA
    above = (estimate.mean or 0.0) > 0
    return Ended(FIXED, differs and above, differs and not above, equivalence(estimate, MARGIN) < ALPHA)


def until_decided(most: int) -> Callable[[Array, float], Ended]:
    """A sequential analysis of a single comparison."""

    def study(values: Array, noise: float) -> Ended:
        looks: list[Estimate] = []
        differ: list[float] = []
        alike: list[float] = []
        for estimate in estimates(values[:most], noise):
            looks.append(estimate)
            differ.append(two_sided(estimate))
            alike.append(equivalence(estimate, MARGIN))
            differs = sequential.two_sided(differ, looks, most) < ALPHA
            same = sequential.one_sided(alike, looks, most) < ALPHA
            if differs or same:
                above = (estimate.mean or 0.0) > 0
                return Ended(estimate.n, differs and above, differs and not above, same)
            if estimate.n < most:
                inside = (MARGIN, ALPHA)
                chance = sequential.chance(estimate, most, differs=(0.0, ALPHA), inside=inside)
                if sequential.futile(chance, estimate.n, most):
                    return Ended(estimate.n)
        return Ended(most)

    return study


def adastop(effect: float, spread: float, studies: int, each: int = 5, looks: int = 3) -> tuple[Array, Array]:
    """Seeds of AdaStop, and whether it found the first algorithm to be better, study by study."""
    rng = np.random.default_rng(SEED)
    permutations = 2000
    drawn = rng.standard_normal((studies, looks, 2 * each)) * spread / np.sqrt(2)
    drawn[:, :, :each] += effect
    order = rng.random((permutations, looks, 2 * each)).argsort(axis=2)
    signs = np.where(order < each, 1.0, -1.0)
    signs[0] = np.repeat([1.0, -1.0], each)  # the data as they are
    seeds, better = np.full(studies, looks * each), np.zeros(studies, bool)
    for number, values in enumerate(drawn):
        sums = (signs * values).sum(axis=2).cumsum(axis=1) / each
        inside, spent = np.ones(permutations, bool), 0.0
        for look in range(looks):
            sizes = np.sort(np.abs(sums[inside, look]))
            allowed = int((ALPHA * (look + 1) / looks - spent) * permutations + 1e-9)
            boundary = sizes[-1 - allowed] if allowed < len(sizes) else 0.0
            if abs(sums[0, look]) > boundary:
                seeds[number], better[number] = (look + 1) * each, sums[0, look] > 0
                break
            outside = inside & (np.abs(sums[:, look]) > boundary)
            spent += outside.sum() / permutations
            inside &= ~outside
    return seeds, better


def print_efficiency(studies: int) -> None:
    """Runs relative to the fixed number of seeds, and power."""
    designs = {"fixed 10": fixed} | {f"at most {most}": until_decided(most) for most in (16, 20)}
    print("| seed sd | image sd | true difference |", end="")
    print("".join(f" {name}: runs | power |" for name in (*designs, "AdaStop")))
    print("|---:" * (3 + 2 * len(designs) + 2) + "|")
    totals: dict[str, list[tuple[float, float]]] = {}
    for noise in (0.0, IMAGE_NOISE):
        for spread in SPREADS:
            for effect in EFFECTS:
                rng = np.random.default_rng(SEED)
                drawn = rng.standard_normal((studies, 20)) * spread + effect
                drawn += rng.standard_normal((studies, 1)) * noise
                found = {name: [run(values, noise) for values in drawn] for name, run in designs.items()}
                line = {
                    name: (
                        float(np.mean([ended.seeds for ended in of]) / FIXED),
                        float(np.mean([ended.right(effect) for ended in of])),
                    )
                    for name, of in found.items()
                }
                for name, pair in line.items():
                    totals.setdefault(f"{name} {noise}", []).append(pair)
                cells = [f" {runs:.2f} | {power:.2f} |" for runs, power in line.values()]
                seeds, better = adastop(effect, spread, min(studies, 500))
                power = f"{better.mean():.2f}" if effect else "none"
                cells.append(f" {seeds.mean() / FIXED:.2f} | {power} |" if not noise else " | |")
                print(f"| {spread:g} | {noise:g} | {effect:g} |{''.join(cells)}", flush=True)
    for name, pairs in totals.items():
        runs, power = np.mean(pairs, axis=0)
        print(f"mean, {name}: {runs:.3f} of the runs, power {power:.3f}")


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    print_efficiency(int(arguments[0]) if arguments else 1000)


if __name__ == "__main__":
    main(sys.argv[1:])
