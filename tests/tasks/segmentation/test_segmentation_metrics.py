"""Scores equal those of a confusion matrix in plain numpy, in one process and in two."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focal_lab.tasks.segmentation.metrics import METRICS, Confusion

CLASSES = 6


def pictures(seed: int, count: int = 9) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Found and true classes; class 5 is in neither, class 4 never true, and 255 does not count."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        size = rng.integers(5, 20, 2)
        true = rng.integers(0, 4, size)
        found = np.where(rng.random(size) < 0.6, true, rng.integers(0, 5, size))
        made.append((found, np.where(rng.random(size) < 0.1, 255, true)))
    return made


def by_numpy(world: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> dict[str, Any]:
    matrix = np.zeros((CLASSES, CLASSES))
    for found, true in world:
        for f, t in zip(found.ravel(), true.ravel(), strict=True):
            if t != 255:
                matrix[t, f] += 1
    ious, accuracies = [], []
    for k in range(CLASSES):
        union = matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]
        ious.append(100 * matrix[k, k] / union if union else np.nan)
        accuracies.append(100 * matrix[k, k] / matrix[k].sum() if matrix[k].sum() else np.nan)
    return {
        "miou": np.nanmean(ious),
        "macc": np.nanmean(accuracies),
        "pixel_acc": 100 * np.trace(matrix) / matrix.sum(),
        "iou": ious,
    }


def fed(
    world: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]], numbers: list[int] | None = None
) -> Confusion:
    metric = Confusion(CLASSES)
    for number in range(len(world)) if numbers is None else numbers:
        found, true = world[number]
        metric.update(torch.from_numpy(found), torch.from_numpy(true), number)
    return metric


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_a_plain_numpy_matrix(seed: int) -> None:
    world = pictures(seed)
    ours, theirs = fed(world).compute(), by_numpy(world)
    for name in METRICS:
        assert float(ours[name]) == pytest.approx(theirs[name], abs=1e-9)
    assert ours["iou"].tolist() == pytest.approx(theirs["iou"], abs=1e-9, nan_ok=True)


def test_a_class_nobody_saw_has_no_score_and_one_that_was_only_predicted_has_zero() -> None:
    scores = fed(pictures(0)).compute()
    assert scores["iou"][5].isnan()
    assert scores["acc"][5].isnan()
    assert scores["iou"][4] == 0
    assert scores["acc"][4].isnan()
    assert scores["miou"] == pytest.approx(float(scores["iou"][:5].mean()))
    named = fed(pictures(0)).by_class(list("abcdef"))
    assert set(named) == set("abcde")


def test_an_image_that_is_seen_twice_counts_once() -> None:
    world = pictures(1)
    twice = fed(world, [*range(9), 0, 4])
    assert torch.equal(twice.matrix(), fed(world).matrix())


def test_nothing_but_ignored_pixels_adds_nothing() -> None:
    metric = Confusion(CLASSES)
    metric.update(torch.zeros(3, 3), torch.full((3, 3), 255), 0)
    assert metric.matrix().sum() == 0
    metric.update(torch.zeros(3, 3), torch.zeros(3, 3), 1)
    assert metric.compute()["miou"] == 100


def test_a_metric_that_was_reset_starts_from_scratch() -> None:
    world = pictures(2)
    metric = fed(world)
    metric.reset()
    assert metric.matrix().sum() == 0


def one_process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    # five of nine images here and four there, the first there again, as a distributed sampler does it
    metric = fed(pictures(3), [*range(rank, 9, 2), *([0] if rank else [])])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_process, (port, str(tmp_path)), nprocs=2)
    expected = fed(pictures(3)).compute()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, equal_nan=True)
