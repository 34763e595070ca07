"""Receptive fields against the pixels that a window's output depends on."""

from typing import Any

import pytest
import torch

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import make_options
from focal_lab.backbones.presets import preset_options
from focal_lab.tools.profile.counts import receptive_field

# One block on a map of 7 x 5 windows of 4 tokens, 2 pixels each: nothing that the middle window sees is cut.
ONE_BLOCK: dict[str, Any] = {
    "img_size": (56, 40),
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (1,),
    "num_heads": 2,
    "window_size": 4,
    "focal_windows": 3,
    "border": "mask",
}
MIDDLE = (3 * 4 + 1, 2 * 4 + 2)


def dependent_pixels(options: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns of the input that a token in the middle window changes with."""
    torch.manual_seed(0)
    model = FocalTransformer(num_classes=0, **options).double().eval()
    image = torch.rand(1, 3, *options["img_size"], dtype=torch.double, requires_grad=True)
    model.forward_features(image)[0, MIDDLE[0], MIDDLE[1]].square().sum().backward()
    assert image.grad is not None
    touched = image.grad.abs().sum((0, 1)) > 0
    return int(touched.any(1).sum()), int(touched.any(0).sum())


@pytest.mark.parametrize(
    "chosen",
    [
        {"focal_levels": 1, "expand_sizes": 0},
        {"focal_levels": 1, "expand_sizes": 1},
        {"focal_levels": 1, "expand_sizes": 3},
        {"focal_levels": 2, "expand_sizes": 0},
        {"focal_levels": 2, "expand_sizes": 3},
        {"focal_levels": 2, "expand_sizes": 0, "focal_windows": 5},
        {"focal_levels": 2, "expand_sizes": 0, "pool_sizes": [2]},
        {"focal_levels": 3, "expand_sizes": 1},
    ],
)
def test_a_windows_output_depends_on_exactly_its_receptive_field(
    chosen: dict[str, Any],
) -> None:
    options = make_options(ONE_BLOCK | chosen)
    (stage,) = options.stages
    seen = receptive_field(stage, options)
    largest = tuple(max(sizes) for sizes in zip(seen["fine"], *seen["coarse"], strict=True))
    assert dependent_pixels(ONE_BLOCK | chosen) == largest


def test_focal_tiny_sees_the_whole_image_from_its_second_stage_on() -> None:
    options = preset_options("focal_tiny")
    seen = [receptive_field(stage, options) for stage in options.stages]
    assert [field["fine"] for field in seen] == [[52, 52], [104, 104], [208, 208], [224, 224]]
    assert [field["coarse"] for field in seen] == [[[196, 196]], *[[[224, 224]]] * 3]


def test_nothing_beyond_the_image_is_counted() -> None:
    options = preset_options("focal_tiny", {"img_size": (100, 300)})
    (first, *_) = options.stages
    seen = receptive_field(first, options)
    assert seen == {"fine": [52, 52], "coarse": [[100, 196]]}


def test_without_coarse_levels_there_is_no_coarse_reach() -> None:
    options = preset_options("focal_swin_tiny")
    seen = [receptive_field(stage, options) for stage in options.stages]
    assert seen[0] == {"fine": [28, 28], "coarse": []}
