"""Many comparisons at once give what they give one by one."""

import numpy as np
import pytest

from focal_lab.report.statistics import crossed, many, power
from focal_lab.report.statistics.crossed import Estimate, over_seeds

COUNT = 300


def random_estimates(seed: int) -> list[Estimate]:
    """Of 2 to 600 seeds, with and without test images, without spread, and without seeds at all."""
    draw = np.random.default_rng(seed)
    found = [Estimate(0, None), over_seeds([1.0]), over_seeds([1.0, 1.0, 1.0])]
    while len(found) < COUNT:
        n = int(draw.choice([2, 3, 4, 5, 10, 40, 600]))
        from_seeds, from_images = 10 ** draw.uniform(-6, 1, 2)
        kind = draw.integers(4)
        units = int(draw.choice([1, 2, n, 30, 500, 50_000]))
        found.append(
            Estimate(
                n,
                float(draw.normal(0, 2)),
                float(np.sqrt(n * from_seeds)),
                float(from_seeds),
                0.0 if kind == 0 else float(from_images),
                0 if kind == 0 else units,
            )
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_p_values_of_many_are_those_of_each(seed: int) -> None:
    estimates = random_estimates(seed)
    values, margins = np.random.default_rng(seed + 10).uniform(0, 3, (2, COUNT))
    together = many.Estimates.of(estimates)
    with_value = zip(estimates, values.tolist(), strict=True)
    assert many.two_sided(together, values) == pytest.approx(
        [crossed.two_sided(one, value) for one, value in with_value], rel=1e-9
    )
    for name in ("equivalence", "beyond"):
        expected = [
            getattr(crossed, name)(one, margin)
            for one, margin in zip(estimates, margins.tolist(), strict=True)
            if one.mean is not None
        ]
        found = getattr(many, name)(together, margins)
        assert found[1:] == pytest.approx(expected, rel=1e-9, abs=1e-30), name


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-5])
def test_power_of_many_is_that_of_each(alpha: float) -> None:
    estimates = [one for one in random_estimates(4) if one.n > 1]
    together = many.Estimates.of(estimates)
    margins = np.random.default_rng(5).choice([0.02, 0.5, 3.0], len(estimates))
    spreads = [power.Spread.of(one) for one in estimates]
    one_by_one = list(zip(margins.tolist(), spreads, estimates, strict=True))
    assert many.detectable(together, alpha) == pytest.approx(
        [power.detectable(spread, one.n, alpha) for _, spread, one in one_by_one], rel=1e-9
    )
    assert many.exaggeration(together, margins, alpha) == pytest.approx(
        [power.exaggeration(margin, spread, one.n, alpha) for margin, spread, one in one_by_one], rel=1e-9
    )
    needed = many.seeds_needed(together, margins, alpha).tolist()
    assert [None if np.isnan(seeds) else seeds for seeds in needed] == [
        power.seeds_needed(margin, spread, alpha) for margin, spread, _ in one_by_one
    ]


def test_more_comparisons_than_a_block_are_all_computed() -> None:
    estimates = [one for one in random_estimates(6) if one.n > 1] * 10
    found = many.detectable(many.Estimates.of(estimates), 0.01)
    assert len(found) == len(estimates) > many.BLOCK
    assert found[: len(estimates) // 10] == pytest.approx(found[-len(estimates) // 10 :])
