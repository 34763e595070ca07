"""Intervals over seeds and test images, from the predictions of runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.statistics.crossed import image_variance
from focal_lab.report.table.build import build_table

LABEL = np.arange(600) % 10
CLUSTER = np.arange(600, dtype=np.int32) // 3


def predicted(out: Path, cell: int, seed: int, right: Any, **arrays: Any) -> None:
    """A run whose predictions are right where `right` is true."""
    finish(out, run_id(cell, seed), metrics={"top1": 100 * float(np.mean(right))})
    found = {"label": LABEL, "prediction": np.where(right, LABEL, (LABEL + 1) % 10), "cluster": CLUSTER}
    found = {name: value for name, value in (found | arrays).items() if value is not None}
    np.savez(out / run_id(cell, seed) / "predictions.npz", **found)


def outcomes(cells: int = 2, seeds: int = 3) -> dict[tuple[int, int], Any]:
    """Which images are right, some easier than others for all networks."""
    draw = np.random.default_rng(3)
    ease = np.repeat(draw.normal(size=200), 3)
    return {
        (cell, seed): ease + draw.normal(size=600) + 1 > 0 for cell in range(cells) for seed in range(seeds)
    }


@pytest.fixture
def plan(out: Path) -> FakePlan:
    for (cell, seed), right in outcomes().items():
        predicted(out, cell, seed, right)
    return make_plan({"window_size": ["7", "14"]}, columns=("top1",), expect=["14 > 7"])


def test_intervals_include_the_test_images_and_the_notes_say_so(plan: FakePlan, out: Path) -> None:
    table = build_table(plan, out)
    entry = table.rows[0].entries["top1"]
    assert entry.images == 200  # sources
    assert entry.sd is not None
    assert entry.half_width is not None
    found = outcomes()
    sums_SU = np.stack([100 * found[0, seed].reshape(200, 3).mean(axis=1) for seed in range(3)])
    variance = image_variance(sums_SU, np.ones(200))
    assert variance > 0
    # between the intervals of Student's quantiles for seeds alone and for images alone
    whole = np.sqrt(entry.sd**2 / 3 + variance)
    assert 1.96 * whole < entry.half_width < 4.303 * whole
    assert table.rows[1].entries["top1"].compared is not None
    assert table.rows[1].entries["top1"].compared.images == 200
    assert any("over seeds and test images" in note for note in table.notes)
    assert any("paired by seed and test image. p: of one comparison;" in note for note in table.notes)
    assert not any("no predictions" in note for note in table.notes)


def test_predictions_of_another_class_order_in_one_run_are_named(plan: FakePlan, out: Path) -> None:
    right = outcomes()[0, 1]
    predicted(out, 0, 1, right, label=(LABEL + 3) % 10, prediction=np.where(right, LABEL + 3, LABEL + 4) % 10)
    table = build_table(plan, out)
    assert table.rows[0].entries["top1"].images == 0
    assert any(
        note.startswith("Predictions of 7 are of different test images or labels") for note in table.notes
    )
    assert not any("not paired by test image" in note for note in table.notes)


def test_rows_with_predictions_of_different_images_are_not_paired_and_the_notes_say_so(
    plan: FakePlan, out: Path
) -> None:
    paired = build_table(plan, out)
    for seed in range(3):
        right = outcomes()[1, seed]
        order = np.random.default_rng(1).permutation(600)
        arrays = {"label": LABEL[order], "prediction": np.where(right, LABEL, (LABEL + 1) % 10)[order]}
        predicted(out, 1, seed, right, **arrays, cluster=CLUSTER[order])
    table = build_table(plan, out)
    assert any(note.endswith("their differences are not paired by test image.") for note in table.notes)
    assert not any("not paired by test image" in note for note in paired.notes)
    first, second = paired.rows[1].entries["top1"].compared, table.rows[1].entries["top1"].compared
    assert first is not None
    assert second is not None
    assert second.image_error > first.image_error


def test_without_predictions_differences_are_paired_by_seed_alone(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14", "21"]}, columns=("top1",))
    for cell in range(3):
        for seed in range(3):
            finish(out, run_id(cell, seed), metrics={"top1": 80.0 + cell + 0.1 * seed * cell})
    notes = build_table(plan, out).notes
    assert any("paired by seed. p: corrected for the 2 comparisons" in note for note in notes)


def test_two_seeds_with_predictions_suffice_for_the_noise_of_the_images(plan: FakePlan, out: Path) -> None:
    complete = build_table(plan, out).rows[0].entries["top1"]
    (out / run_id(0, 2) / "predictions.npz").unlink()
    table = build_table(plan, out)
    entry = table.rows[0].entries["top1"]
    assert (entry.n, entry.images) == (3, 200)
    assert entry.half_width == pytest.approx(complete.half_width, rel=0.3)
    assert any(note.startswith("1 finished run has no predictions") for note in table.notes)
    (out / run_id(0, 1) / "predictions.npz").unlink()
    table = build_table(plan, out)
    assert table.rows[0].entries["top1"].images == 0
    assert table.rows[1].entries["top1"].images == 200
    assert table.answers[0].images == 0


@pytest.mark.parametrize("content", [b"", b"PK", b"nonsense" * 100])
def test_a_damaged_file_is_named_and_left_out(plan: FakePlan, out: Path, content: bytes) -> None:
    path = out / run_id(0, 0) / "predictions.npz"
    path.write_bytes(content)
    table = build_table(plan, out)
    assert table.rows[0].entries["top1"].images == 200
    assert [note for note in table.notes if str(path) in note]


def test_predictions_of_another_result_are_left_out(plan: FakePlan, out: Path) -> None:
    predicted(out, 0, 0, np.ones(600, bool))
    finish(out, run_id(0, 0), metrics={"top1": 70.0})
    table = build_table(plan, out)
    assert any("belongs to another result" in note for note in table.notes)


@pytest.mark.parametrize(
    "arrays",
    [{"label": (LABEL + 3) % 10}, {"cluster": CLUSTER[::-1]}, {"cluster": None}],
    ids=["classes", "sources", "independent"],
)
def test_images_of_another_test_set_are_never_paired(out: Path, arrays: dict[str, Any]) -> None:
    """Rows with equal outcomes: paired they would have no noise of images at all."""
    found = outcomes(1)
    for cell in (0, 1):
        for seed in range(3):
            own = arrays if cell else {}
            label = own.get("label", LABEL)
            prediction = np.where(found[0, seed], label, (label + 1) % 10)
            predicted(out, cell, seed, found[0, seed], **(own | {"prediction": prediction}))
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1",))
    compared = build_table(plan, out).rows[1].entries["top1"].compared
    assert compared is not None
    assert compared.half_width is not None
    assert compared.half_width > 1
    paired = make_plan({"window_size": ["7", "14"]}, columns=("top1",))
    for seed in range(3):
        predicted(out, 1, seed, found[0, seed])
    compared = build_table(paired, out).rows[1].entries["top1"].compared
    assert compared is not None
    assert (compared.half_width, compared.verdict) == (0.0, "no spread")


def test_a_mean_over_rows_has_the_noise_of_the_images_once(out: Path) -> None:
    """Two cells with the same outcomes: their mean has the interval of one of them."""
    found = outcomes(1)
    for cell in (0, 1):
        for seed in range(3):
            predicted(out, cell, seed, found[0, seed])
    plan = make_plan(
        {"window_size": ["7", "14"]}, columns=("top1",), expect=["0.5 * 7 + 0.5 * 14 > 50", "7 > 50"]
    )
    mean, one = build_table(plan, out).answers
    assert mean.half_width == pytest.approx(one.half_width)
    assert mean.difference == pytest.approx(one.difference)
