"""`focal-lab export --to onnx|torch_export` of detection and segmentation, and what no graph can hold."""

import json
from pathlib import Path

import pytest
import torch
from support.trained_run import export, noise, train
from torchvision.ops import batched_nms

from focal_lab import cli
from focal_lab.tools.trained.load import open_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of each kind of head, on the smallest backbone that there is."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "retinanet", "Detection", "test_resnet")
    train(folder / "mask_rcnn", "Detection", "test_resnet", method="mask_rcnn", head_width=32)
    train(folder / "pixels", "Segmentation", "test_resnet")
    return folder


def test_a_segmentation_gives_logits_of_every_pixel(project: Path) -> None:
    argv = ["--to", "torch_export", "--output", "pixels.pt2", "--image-size", 32, 64]
    assert export(project / "pixels", *argv) == 0
    network = torch.export.load("pixels.pt2").module()
    module = open_trained(str(project / "pixels"), Path("runs")).module
    images = noise(3, 64)[:, :, :32]
    with torch.no_grad():
        found = network(images)
        assert found.shape == (3, 11, 32, 64)
        assert found.argmax(1).equal(torch.stack(module(list(images))))


def test_suppression_of_a_retinanets_exported_boxes_gives_the_modules_detections(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # so short a training says 0.01 of everything; equal scores have no order
    state = torch.load(project / "retinanet/checkpoints/best.ckpt", weights_only=True)
    state["state_dict"]["model.head.classification_head.cls_logits.weight"].mul_(300)
    torch.save(state, "retinanet.ckpt")
    assert export("retinanet.ckpt", "--to", "torch_export", "--batch", 2) == 0
    assert "non-maximum suppression" in capsys.readouterr().out
    metadata = {"focal_lab.json": ""}
    network = torch.export.load("retinanet.pt2", extra_files=metadata).module()
    known = json.loads(metadata["focal_lab.json"])
    trained = open_trained("retinanet.ckpt", Path("runs"))
    detector = trained.module.model
    detector.score_thresh, detector.topk_candidates = 0.0, 10**6  # type: ignore[assignment]
    images = noise(2, 64)
    with torch.no_grad():
        boxes_all, scores_all = network(images)
        expected = trained.module(list(images))
    assert (known["nms_thresh"], known["detections_per_img"]) == (0.5, 100)
    for boxes, scores, answer in zip(boxes_all, scores_all, expected, strict=True):
        where, labels = (scores > 0).nonzero(as_tuple=True)
        kept = batched_nms(boxes[where], scores[where, labels], labels, known["nms_thresh"])[:100]
        assert len(kept) == len(answer["scores"]) > 0
        torch.testing.assert_close(scores[where, labels][kept], answer["scores"])
        torch.testing.assert_close(boxes[where][kept], answer["boxes"])


def test_a_detector_with_proposals_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(project / "mask_rcnn", "--to", "onnx") == cli.USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("focal-lab: --to: mask_rcnn cannot be written as a graph: ")
    assert "data-dependent" in line
    assert list(Path().iterdir()) == []
