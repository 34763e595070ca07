"""Coverage of a report's intervals and error rates of its verdicts, in simulated studies with a known truth.

A study has cells (networks) that are trained with some seeds and tested on the same images. Whether an image
is classified correctly depends on its source, the image, the cell, the seed, and chance; all are normal on a
latent scale, so that the true accuracy is known exactly. Differences between cells are tested by the code of
reports.

    python benchmarks/statistics/coverage.py [--studies 2000] [--only coverage|verdicts]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from focal_lab.report.statistics.crossed import Estimate, image_variance, over_seeds
from focal_lab.report.table.decide import Question, decide
from focal_lab.sweep.spec.columns import COLUMNS

Array = NDArray[np.float32]
TOP1 = COLUMNS["top1"]
# Shares of source, image and chance in the latent variance, and how much of the first two cells share:
# about what the runs of the digits suite show (sd of a difference from images: 1 point at 500 sources).
_SOURCE, _IMAGE, _CHANCE, _SHARED = 0.45, 0.25, 0.30, 0.6


@dataclass(frozen=True)
class Design:
    """What a study looks like.

    Attributes:
        per_source: images that share a source.
        seed_sd: standard deviation between seeds of the difference of two cells, in points.
    """

    seeds: int
    images: int
    per_source: int
    seed_sd: float


def study(design: Design, accuracies: Sequence[float], rng: np.random.Generator) -> list[Array]:
    """For each cell, percent correct of each seed and source, float32 (seeds, sources).

    Args:
        accuracies: true ones, in percent; the first is the baseline's.
    """
    sources = design.images // design.per_source
    density = np.exp(-(ndtri(accuracies[0] / 100) ** 2) / 2) / sqrt(2 * np.pi)
    spread = design.seed_sd / 100 / sqrt(2) / density
    spread /= sqrt(max(1e-9, 1 - spread**2))  # the latent variance grows with it
    total = sqrt(1 + spread**2)
    shape = (1, sources, design.per_source)

    def normal(*size: int) -> Array:
        return rng.standard_normal(size, np.float32)

    source, image = normal(1, sources, 1), normal(*shape)
    cells = []
    for accuracy in accuracies:
        latent = sqrt(_SOURCE) * (sqrt(_SHARED) * source + sqrt(1 - _SHARED) * normal(1, sources, 1))
        latent = latent + sqrt(_IMAGE) * (sqrt(_SHARED) * image + sqrt(1 - _SHARED) * normal(*shape))
        latent = latent + sqrt(_CHANCE) * normal(design.seeds, *shape[1:])
        latent = latent + np.float32(spread) * normal(design.seeds, 1, 1)
        correct = latent > -ndtri(accuracy / 100) * total
        cells.append(100 * correct.mean(axis=2, dtype=np.float32))
    return cells


class Simulated:
    """Estimates contrasts of a study's cells, as `TestUnits` does those of a table's rows."""

    def __init__(self, cells: Sequence[Array], *, with_images: bool = True) -> None:
        self._cells, self._with_images = cells, with_images

    def estimate(self, terms: Sequence[tuple[float, int]], column: object, constant: float = 0.0) -> Estimate:
        """The weighted sum of cells plus a constant."""
        contrast = sum(np.float32(weight) * self._cells[index] for weight, index in terms)
        found = over_seeds([float(value) + constant for value in contrast.mean(axis=1, dtype=np.float64)])
        if not self._with_images:
            return found
        variance = image_variance(contrast, np.ones(contrast.shape[1], np.float32))
        return Estimate(found.n, found.mean, found.sd, found.seed_variance, variance, contrast.shape[1])


def coverage(studies: int, rng: np.random.Generator) -> None:
    """Print how many 95 % intervals of a difference contain the truth."""
    print("| seeds | images | sources | seed sd | crossed | seeds alone | width |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for seeds in (3, 5, 10):
        for images, per_source in ((500, 1), (2000, 4), (10000, 1)):
            for seed_sd in (0.0, 0.5, 1.0, 2.0):
                design = Design(seeds, images, per_source, seed_sd)
                inside, alone, widths = 0, 0, []
                for _ in range(studies):
                    cells = study(design, (80.0, 81.0), rng)
                    for_all = Simulated(cells).estimate([(1.0, 1), (-1.0, 0)], TOP1)
                    for_seeds = Simulated(cells, with_images=False).estimate([(1.0, 1), (-1.0, 0)], TOP1)
                    assert for_all.mean is not None
                    inside += abs(for_all.mean - 1.0) <= (for_all.half_width or 0.0)
                    alone += abs(for_all.mean - 1.0) <= (for_seeds.half_width or 0.0)
                    widths.append(for_all.half_width or 0.0)
                sources = images // per_source
                print(
                    f"| {seeds} | {images:,} | {sources:,} | {seed_sd} | {100 * inside / studies:.1f} % | "
                    f"{100 * alone / studies:.1f} % | ± {np.median(widths):.2f} |",
                    flush=True,
                )


def verdicts(studies: int, rng: np.random.Generator) -> None:
    """Print how many reports have a false verdict."""
    print("| seeds | comparisons | seed sd | no effect: better or worse | effect of a margin: equivalent |")
    print("|---:|---:|---:|---:|---:|")
    margin = 2.5
    for seeds in (3, 5, 10):
        for comparisons in (1, 3, 6):
            for seed_sd in (0.5, 1.0, 2.0):
                design = Design(seeds, 2000, 4, seed_sd)
                false = {
                    effect: sum(_any(design, comparisons, effect, margin, rng, words) for _ in range(studies))
                    for effect, words in ((0.0, ("better", "worse")), (margin, ("equivalent",)))
                }
                shares = " | ".join(f"{100 * count / studies:.1f} %" for count in false.values())
                print(f"| {seeds} | {comparisons} | {seed_sd} | {shares} |", flush=True)


def _any(
    design: Design,
    comparisons: int,
    effect: float,
    margin: float,
    rng: np.random.Generator,
    words: tuple[str, ...],
) -> bool:
    """Whether a report on cells with that effect on accuracy has one of these verdicts."""
    cells = study(design, (80.0, *[80.0 + effect] * comparisons), rng)
    questions = [
        Question(TOP1, [(1.0, index), (-1.0, 0)], 0.0, "better", margin)
        for index in range(1, comparisons + 1)
    ]
    return any(found.verdict.startswith(words) for found in decide(questions, Simulated(cells)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--only", choices=("coverage", "verdicts"))
    options = parser.parse_args()
    rng = np.random.default_rng(2026)
    if options.only != "verdicts":
        coverage(options.studies, rng)
    if options.only != "coverage":
        verdicts(options.studies, rng)


if __name__ == "__main__":
    main()
