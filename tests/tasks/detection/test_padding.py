"""A image gets the same answer and the same loss alone and in a batch with larger ones."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from focal_lab.tasks.detection.methods import METHODS
from focal_lab.tasks.detection.parts import Settings
from focal_lab.tasks.features import Features

SIZES = [(61, 90), (96, 64), (33, 35)]
# every proposal and region is looked at, so that nothing is drawn at random
EVERYTHING = {
    "faster_rcnn": {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6},
    "mask_rcnn": {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6},
}


def make(method: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": 96, "focal_windows": 5}
    features = Features("focal_micro_patch2_window7_28", options, None, METHODS[method].stages)
    settings = Settings(
        features,
        num_classes=3,
        channels=32,
        head_width=64,
        options=EVERYTHING.get(method, {}) | changes,
    )
    return METHODS[method].build(settings)


def pictures() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(3, *size) for size in SIZES]


def targets(masks: bool) -> list[dict[str, Tensor]]:
    made = []
    for height, width in SIZES:
        boxes = torch.tensor(
            [[2.0, 3.0, 22.0, 30.0], [width - 17.0, height - 25.0, float(width), float(height)]]
        )
        target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
        if masks:
            seen = torch.zeros(2, height, width, dtype=torch.uint8)
            for number, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
                seen[number, top:bottom, left:right] = 1
            target["masks"] = seen
        made.append(target)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_answers_do_not_depend_on_the_batch(method: str) -> None:
    detector = make(method).double().eval()
    answering = getattr(detector, "roi_heads", detector)
    answering.score_thresh = 0.0  # the network knows nothing yet: see all that it would say
    images = [picture.double() for picture in pictures()]
    with torch.no_grad():
        together = detector(images)
        for number, image in enumerate(images):
            (alone,) = detector([image])
            assert alone.keys() == together[number].keys()
            assert len(alone["boxes"]) > 10
            for name, expected in alone.items():
                torch.testing.assert_close(together[number][name], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_losses_do_not_depend_on_the_frame(method: str) -> None:
    detector = make(method).double().train()
    image, target = pictures()[0].double(), targets(method == "mask_rcnn")[0]
    target["boxes"] = target["boxes"].double()
    expected, gradients = losses_of(detector, image, target)
    detector.transform.size_divisible = 160
    found, found_gradients = losses_of(detector, image, target)
    assert expected.keys() == found.keys()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found_gradients, gradients, rtol=1e-6, atol=1e-9)


def losses_of(
    detector: nn.Module, image: Tensor, target: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    detector.zero_grad()
    losses = detector([image], [dict(target)])
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def test_a_copy_has_its_own_extent() -> None:
    detector = make("retinanet").double().eval()
    copied = copy.deepcopy(detector)
    copied.score_thresh = detector.score_thresh = 0.0
    small, large = pictures()[2].double(), torch.rand(3, 128, 128).double()
    with torch.no_grad():
        (expected,) = detector([small])
        detector([large])
        found, _ = copied([small, large])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_boxes_are_in_full_precision_when_the_network_is_not(method: str) -> None:
    detector = make(method).eval()
    answering = getattr(detector, "roi_heads", detector)
    answering.score_thresh = 0.0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (answer, *_) = detector(pictures())
    assert answer["boxes"].dtype == answer["scores"].dtype == torch.float32
    # many lie at an edge, which bfloat16 can say, too
    assert (answer["boxes"].bfloat16() != answer["boxes"]).float().mean() > 0.2
    detector.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(pictures(), targets(method == "mask_rcnn"))
    assert all(torch.isfinite(value) for value in losses.values())
