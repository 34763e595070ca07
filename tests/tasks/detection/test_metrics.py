"""Average precision equals pycocotools' on objects, misses, doubles, crowds and empty images."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from focal_lab.tasks.detection.metrics import AveragePrecision, metric_names

SIDE, CLASSES = 160, 4


def ellipse(box: list[float]) -> Tensor:
    """A mask (SIDE, SIDE) that fills a box as an ellipse."""
    left, top, right, bottom = box
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    inside = ((x - (left + right) / 2) / (right - left)) ** 2 + (
        (y - (top + bottom) / 2) / (bottom - top)
    ) ** 2
    return inside <= 0.25


def random_boxes(rng: np.random.Generator, count: int) -> list[list[float]]:
    sizes = rng.integers(8, 130, (count, 2))
    corners = rng.integers(0, SIDE - sizes)
    return np.concatenate([corners, corners + sizes], 1).astype(float).tolist()


def as_target(boxes: list[list[float]], labels: Any, **more: Any) -> dict[str, Tensor]:
    masks = torch.stack([ellipse(box) for box in boxes]) if boxes else torch.zeros(0, SIDE, SIDE).bool()
    made = {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.as_tensor(labels, dtype=torch.int64),
        "masks": masks,
    }
    return made | {name: torch.as_tensor(value) for name, value in more.items()}


def scenes(seed: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Truths of 12 images, one of them empty, and answers that are near, wrong, double or missing."""
    rng = np.random.default_rng(seed)
    truths, answers = [], []
    for picture in range(12):
        count = int(rng.integers(1, 7)) if picture else 0
        boxes, labels = random_boxes(rng, count), rng.integers(CLASSES, size=count)
        truth = as_target(boxes, labels, iscrowd=(rng.random(count) < 0.2).astype(np.int64))
        truth["area"] = truth["masks"].sum((1, 2)).float()
        said, classes = random_boxes(rng, 2), list(rng.integers(CLASSES, size=2))
        for box, label in zip(boxes, labels, strict=True):
            for _ in range(int(rng.integers(0, 3))):
                moved = (np.array(box) + rng.normal(0, 4, 4)).round().clip(0, SIDE)
                if moved[0] + 3 < moved[2] and moved[1] + 3 < moved[3]:
                    said.append(moved.tolist())
                    classes.append(label if rng.random() < 0.8 else rng.integers(CLASSES))
        truths.append(truth)
        answers.append(as_target(said, classes, scores=torch.tensor(rng.random(len(said)))))
    return truths, answers


def by_pycocotools(
    truths: list[dict[str, Tensor]], answers: list[dict[str, Tensor]], kind: str
) -> tuple[list[float], Any]:
    annotations: list[Any] = []
    results: list[Any] = []
    for number, (truth, answer) in enumerate(zip(truths, answers, strict=True)):
        for listed, part in ((annotations, truth), (results, answer)):
            for i, (left, top, right, bottom) in enumerate(part["boxes"].tolist()):
                entry = {
                    "image_id": number,
                    "category_id": int(part["labels"][i]),
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": coco_mask.encode(
                        np.asfortranarray(part["masks"][i].numpy().astype(np.uint8))
                    ),
                }
                if part is truth:
                    entry |= {
                        "id": len(listed) + 1,
                        "iscrowd": int(truth["iscrowd"][i]),
                        "area": float(truth["area"][i]),
                    }
                else:
                    entry |= {"score": float(answer["scores"][i])}
                    entry.pop("bbox" if kind == "segm" else "segmentation")
                listed.append(entry)
    data = COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(truths))],
        "categories": [{"id": i} for i in range(CLASSES)],
        "annotations": annotations,
    }
    data.createIndex()
    evaluation = COCOeval(data, data.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    per_class = [100 * precision[:, :, i][precision[:, :, i] > -1].mean() for i in range(CLASSES)]
    return [100 * value if value >= 0 else np.nan for value in evaluation.stats[:6]], per_class


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_pycocotools(seed: int) -> None:
    truths, answers = scenes(seed)
    metric = AveragePrecision(masks=True, per_class=True)
    metric.update(answers[:5], truths[:5])
    metric.update(answers[5:], truths[5:])
    found, by_class = metric.percent(), metric.by_class(list("abcd"))
    assert tuple(found) == metric_names(masks=True)
    for kind, theirs in (("box", "bbox"), ("mask", "segm")):
        expected, per_class = by_pycocotools(truths, answers, theirs)
        ours = [float(found[name]) for name in metric_names(masks=True) if name.endswith(kind)]
        assert ours == pytest.approx(expected, abs=1e-4, nan_ok=True)
        assert [float(by_class[kind][name]) for name in "abcd"] == pytest.approx(per_class, abs=1e-4)
        assert 0 < ours[0] < 95


def test_boxes_alone_are_evaluated_alike() -> None:
    truths, answers = scenes(9)
    metric = AveragePrecision(masks=False)
    metric.update(answers, truths)
    expected, _ = by_pycocotools(truths, answers, "bbox")
    assert [float(value) for value in metric.percent().values()] == pytest.approx(
        expected, abs=1e-4, nan_ok=True
    )


def test_what_is_not_there_has_no_figure() -> None:
    metric = AveragePrecision(masks=False)
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    metric.update(
        [{"boxes": box, "labels": torch.tensor([0]), "scores": torch.tensor([0.5])}],
        [{"boxes": box, "labels": torch.tensor([0])}],
    )
    found = metric.percent()
    assert found["ap_box"] == found["ap_small_box"] == pytest.approx(100)
    assert found["ap_large_box"].isnan()


def test_an_image_that_is_seen_twice_counts_once() -> None:
    truths, answers = scenes(5)
    numbered = [truth | {"image_id": torch.tensor(i)} for i, truth in enumerate(truths)]
    once, twice = AveragePrecision(masks=True), AveragePrecision(masks=True)
    once.update(answers, numbered)
    twice.update([*answers, answers[3], answers[0]], [*numbered, numbered[3], numbered[0]])
    torch.testing.assert_close(twice.percent(), once.percent(), equal_nan=True)
    assert len(twice.detection_box) == 14


def one_process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    truths, answers = scenes(5)
    # five of eleven images here and six there, the last here again, as a distributed sampler does it
    chosen = [*range(rank, 11, 2), *([0] if rank else [])]
    metric = AveragePrecision(masks=True)
    metric.update([answers[i] for i in chosen], [truths[i] | {"image_id": torch.tensor(i)} for i in chosen])
    torch.save(metric.percent(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_process, (port, str(tmp_path)), nprocs=2)
    truths, answers = scenes(5)
    metric = AveragePrecision(masks=True)
    metric.update(answers[:11], truths[:11])
    expected = metric.percent()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, equal_nan=True)
