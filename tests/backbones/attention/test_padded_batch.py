"""Images of different sizes in one batch: with border="mask" only an image itself changes its maps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import ATTENTIONS, POOLINGS

SIZES = [(61, 83), (96, 40), (20, 90)]
FRAME = (104, 121)
OPTIONS: dict[str, dict[str, Any]] = {
    **{f"{pool} pooling": {"focal_pool": pool} for pool in POOLINGS},
    "three levels": {"focal_levels": (3, 2, 1)},
    "overlapping, pre-norm": {"use_conv_embed": True, "use_pre_norm": True},
    "pre-norm": {"use_pre_norm": True},
    "swin": {"focal_levels": 1, "expand_sizes": 0, "downsample": "merge"},
    "text": {"coarse_bias": "window", "level_overlap": "exclude", "expand_sizes": 1},
    "uneven sub-windows": {"pool_sizes": 2},
}
EVERY = pytest.mark.parametrize("case", OPTIONS)


def make(case: str, **options: Any) -> FocalTransformer:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "img_size": 96,
        "embed_dim": 8,
        "depths": (2, 2, 1),
        "num_heads": (1, 2, 2),
        "window_size": 5,
        "expand_sizes": 2,
        "focal_windows": 3,
        "use_shift": True,
        "border": "mask",
    }
    model = FocalTransformer(num_classes=0, **small | OPTIONS[case] | options).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def framed(frame: tuple[int, int], garbage: float) -> tuple[list[Tensor], Tensor, Tensor]:
    """Images, the batch that holds them, and their sizes."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in SIZES]
    batch = torch.full((len(SIZES), 3, *frame), garbage, dtype=torch.float64)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return images, batch, torch.tensor(SIZES)


@pytest.mark.parametrize("attention", ATTENTIONS)
@EVERY
def test_pixels_beyond_an_image_change_nothing(case: str, attention: str) -> None:
    model = make(case, attention=attention)
    images, batch, sizes = framed(FRAME, garbage=float("nan"))
    with torch.no_grad():
        final, maps = model.forward_intermediates(batch, norm=True, valid_size=sizes)
        assert final.equal(model.forward_features(batch, valid_size=sizes))
        for i, image in enumerate(images):
            _, alone = model.forward_intermediates(image[None], norm=True)
            for together, expected in zip(maps, alone, strict=True):
                height, width = expected.shape[2:]
                torch.testing.assert_close(
                    together[i : i + 1, :, :height, :width], expected, rtol=1e-9, atol=1e-9
                )
                assert not together[i, :, height:].any()
                assert not together[i, :, :, width:].any()


@EVERY
def test_the_size_of_the_frame_changes_nothing(case: str) -> None:
    model = make(case)
    with torch.no_grad():
        found = []
        for frame, garbage in ((FRAME, 5.0), ((160, 130), -1e6)):
            _, batch, sizes = framed(frame, garbage)
            found.append(model.forward_intermediates(batch, valid_size=sizes, intermediates_only=True))
    for small, large in zip(*found, strict=True):
        torch.testing.assert_close(
            large[:, :, : small.shape[2], : small.shape[3]], small, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("case", ["fc pooling", "max pooling", "overlapping, pre-norm", "swin"])
def test_gradients_equal_those_of_single_images(case: str) -> None:
    model = make(case).train()
    images, batch, sizes = framed(FRAME, garbage=float("nan"))
    batch.requires_grad_()
    sum(value.square().sum() for value in model.forward_intermediates(batch, valid_size=sizes)[1]).backward()
    found = {
        name: parameter.grad for name, parameter in model.named_parameters() if not name.startswith("norm.")
    }
    assert batch.grad is not None
    for row, (height, width) in zip(batch.grad, SIZES, strict=True):
        assert row[:, :height, :width].abs().min(0).values.median() > 0
        assert not row[:, height:].any()
        assert not row[:, :, width:].any()
    model.zero_grad()
    for image in images:
        sum(value.square().sum() for value in model.forward_intermediates(image[None])[1]).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("norm."):
            continue
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-7, atol=1e-9, msg=name)


def test_a_padded_batch_recomputes_its_blocks() -> None:
    model = make("fc pooling").train()
    _, batch, sizes = framed(FRAME, garbage=float("nan"))
    expected = model.forward_features(batch, sizes)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model.forward_features(batch, sizes), expected)


def test_a_padded_batch_compiles() -> None:
    torch._dynamo.reset()
    model = make("fc pooling").train()
    _, batch, sizes = framed(FRAME, garbage=float("nan"))
    expected = model.forward_features(batch, sizes)
    compiled = torch.compile(model.forward_features, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch, sizes), expected)


def test_a_wrapped_border_is_refused() -> None:
    model = make("fc pooling", border="wrap")
    _, batch, sizes = framed(FRAME, garbage=0.0)
    with pytest.raises(ValueError, match=r"^valid_size: needs border='mask', not 'wrap'"):
        model.forward_features(batch, sizes)
