"""Whole images, windows, scales and mirrors: what comes out is what the plain way gives."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from focal_lab.errors import UserError
from focal_lab.tasks.features import Features
from focal_lab.tasks.padding import Extent
from focal_lab.tasks.segmentation.decoders import build_decoder
from focal_lab.tasks.segmentation.evaluation import Protocol, _slide, segment
from focal_lab.tasks.segmentation.network import Segmenter

NATIVE: dict[str, Any] = {"short_side": None, "window": 64, "step": 32}


def segmenter(classes: int = 20, **options: Any) -> Segmenter:
    torch.manual_seed(0)
    features = Features("focal_micro", {"img_size": 64} | options, None, 4)
    decoder = build_decoder("upernet", features.channels, features.strides, 16)
    return Segmenter(features, decoder, classes, auxiliary_channels=8).eval()


class Local(nn.Module):
    """Stands for a network that looks at each pixel alone, so that windows cannot change anything."""

    stride = 2

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.features = nn.Module()
        self.features.extent = Extent()  # type: ignore[assignment]
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(F.avg_pool2d(images, 2), self.weight)

    def framed(self, images: Tensor) -> Tensor:
        below, right = -images.shape[-2] % 32, -images.shape[-1] % 32
        return F.pad(images, (0, right, 0, below))

    def logits(self, images: Tensor) -> Tensor:
        height, width = (-(-length // 2) for length in images.shape[-2:])
        return self(self.framed(images))[..., :height, :width]


def test_the_class_of_a_pixel_is_that_of_the_highest_enlarged_logit() -> None:
    model, images = segmenter(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found = segment(model, images, Protocol(**NATIVE))
        logits = F.interpolate(model(model.framed(images)), (64, 96), mode="bilinear", align_corners=False)
    assert torch.equal(found, logits.argmax(1))
    assert found.dtype == torch.int64


def test_several_views_average_probabilities_at_the_original_size() -> None:
    model, images = segmenter(), torch.randn(1, 3, 64, 96)
    protocol = Protocol(**NATIVE, scales=(0.5, 1.0, 1.5), flip=True)
    total = torch.zeros(1, 20, 64, 96)
    with torch.no_grad():
        found = segment(model, images, protocol)
        for size in ((32, 64), (64, 96), (96, 160 - 16)):
            size = protocol.size(64, 96, size[0] / 64)
            for mirrored in (False, True):
                seen = images.flip(-1) if mirrored else images
                if size != (64, 96):
                    seen = F.interpolate(seen, size, mode="bilinear", antialias=True)
                logits = model.logits(seen)
                logits = logits.flip(-1) if mirrored else logits
                logits = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
                total += logits.softmax(1)
    same = (found == total.argmax(1)).float().mean()
    assert same > 0.999  # the sum of the few probabilities that are equal depends on its order


def test_an_image_as_large_as_a_window_is_one_window() -> None:
    model, images = segmenter(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole = segment(model, images, Protocol(**NATIVE))
        windows = segment(model, images, Protocol(**NATIVE, mode="slide"))
    assert torch.equal(whole, windows)


@pytest.mark.parametrize("size", [(64, 64), (100, 150), (40, 200), (33, 31)])
@pytest.mark.parametrize("step", [64, 40, 31])
def test_windows_cover_everything_and_their_mean_is_that_of_all_that_see_a_pixel(
    size: tuple[int, int], step: int
) -> None:
    model, images = Local(), torch.randn(2, 3, *size)
    protocol = Protocol(mode="slide", short_side=None, window=64, step=step)
    with torch.no_grad():
        expected = model.logits(images)
        torch.testing.assert_close(_slide(model, images, protocol), expected)  # type: ignore[arg-type]


def test_windows_see_their_own_part_alone() -> None:
    model, images = segmenter(), torch.randn(1, 3, 64, 128)
    changed = images.clone()
    changed[..., 64:] = 0
    protocol = Protocol(short_side=None, window=64, step=64, mode="slide")
    with torch.no_grad():
        before, after = (_slide(model, x, protocol) for x in (images, changed))
    torch.testing.assert_close(before[..., :32], after[..., :32])
    assert not torch.allclose(before[..., 32:], after[..., 32:])


def test_sides_are_multiples_of_32_and_proportions_are_kept() -> None:
    protocol = Protocol(short_side=512, long_side=2048)
    assert protocol.size(480, 640) == (512, 672)  # 682.7 px
    assert protocol.size(100, 1000) == (192, 2048)
    assert protocol.size(683, 512, 1.75) == (1184, 896)
    assert Protocol(short_side=None).size(33, 57) == (33, 57)
    assert Protocol(short_side=None).size(64, 96, 0.5) == (32, 64)  # 48 px
    assert protocol.size(1, 3000) == (32, 2048)


def test_padding_at_the_original_size_is_cut_off() -> None:
    model = segmenter(window_size=8)
    with torch.no_grad():
        assert segment(model, torch.randn(1, 3, 50, 70), Protocol(**NATIVE)).shape == (1, 50, 70)
        assert model.logits(torch.randn(1, 3, 51, 71)).shape == (1, 20, 26, 36)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"mode": "tiles"}, "model.evaluation"),
        ({"short_side": 0}, "model.test_size"),
        ({"short_side": 512, "long_side": 500}, "model.max_size"),
        ({"window": 100}, "model.window"),
        ({"step": 513}, "model.window_step"),
        ({"scales": (1.0, 0.0)}, "model.scales"),
        ({"scales": ()}, "model.scales"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as error:
        Protocol(**options)
    assert error.value.key == key
