from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.finished_runs import finish, make_plan, run_id

from focal_lab.report.statistics.crossed import image_variance, image_variances
from focal_lab.report.table.build import build_table
from focal_lab.report.table.test_units import TestUnits
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.training.predictions_file import write_predictions

DRAW = np.random.default_rng(5)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_several_contrasts_have_the_variances_of_each(seeds: int) -> None:
    values_SRU = DRAW.normal(80, 10, size=(seeds, 4, 60)) + 8 * DRAW.normal(size=(4, 60))
    weights_CR = np.array([[1, -1, 0, 0], [0.5, 0.5, -0.5, -0.5], [1, 0, 0, 0], [0, 0, 0, 0]])
    sizes_U = DRAW.integers(1, 5, 60).astype(float)
    sizes_U /= sizes_U.mean()
    contrasts_SCU = np.einsum("cr,sru->scu", weights_CR, values_SRU).astype(np.float32)
    found = image_variances(contrasts_SCU, sizes_U)
    expected = [image_variance(contrasts_SCU[:, place], sizes_U) for place in range(4)]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert found[0] > 0


def test_one_seed_or_one_unit_has_no_variance_from_images() -> None:
    assert image_variances([np.ones((2, 9))], np.ones(9)).tolist() == [0, 0]
    assert image_variances([np.ones((2, 1))] * 3, np.ones(1)).tolist() == [0, 0]


def test_sources_of_different_sizes_are_centred_on_the_contrast() -> None:
    """A constant contrast has no spread, however many images a source has."""
    sizes_U = np.array([0.5, 1.0, 1.5])
    assert image_variance(np.tile(7 * sizes_U, (3, 1)), sizes_U) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kinds", ["all", "none", "one without", "two test sets"])
def test_contrasts_of_a_table_are_those_estimated_one_by_one(kinds: str, out: Path) -> None:
    plan = make_plan({"a": ["0", "1"], "b": ["x", "y"]}, columns=("top1",), seeds=range(4))
    cluster = np.repeat(np.arange(20), [1, 2, 3, 4] * 5)
    for number in range(4):
        easy = DRAW.normal(size=len(cluster)) + DRAW.normal(size=20)[cluster] + 0.4 * number
        for seed in range(4 - number % 2):
            label = np.zeros(len(cluster), np.int64)
            right = easy + DRAW.normal(0, 0.5, len(cluster)) > 0
            finish(out, run_id(number, seed), metrics={"top1": 100 * right.mean()})
            arrays = {"label": label, "prediction": 1 - right.astype(np.int64)}
            if not (kinds == "two test sets" and number == 3):
                arrays["cluster"] = cluster
            if kinds != "none" and not (kinds == "one without" and (number, seed) == (2, 1)):
                write_predictions(out / run_id(number, seed), arrays)
    results = {run.id: read_outcome(out / run.id).result for run in plan.runs}
    known = {run: result for run, result in results.items() if result is not None}
    units = TestUnits(build_table(plan, out).rows, known, out)
    column = COLUMNS["top1"]
    weights: Sequence[Sequence[float]] = [[1, -1, 0.5, -0.5], [-1, 0, 0, 1], [0.25] * 4]
    for found, row in zip(units.estimates(np.array(weights), range(4), column), weights, strict=True):
        one = units.estimate([(weight, at) for at, weight in enumerate(row)], column)
        assert (found.n, found.units) == (one.n, one.units) == (3, one.units)
        assert found.mean == pytest.approx(one.mean, rel=1e-9)
        assert found.sd == pytest.approx(one.sd, rel=1e-9)
        assert found.image_variance == pytest.approx(one.image_variance, rel=1e-3, abs=1e-9)
        assert (found.image_variance > 0) == (kinds != "none")
