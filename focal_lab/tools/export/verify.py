"""Compares an exported network with the module that it was exported from.

Shape suffixes: B batch, C channels, H W image.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.errors import UserError
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import TrainedTask
from focal_lab.tools.trained.preprocessing import validation_images

_IMAGES = 8
# torch.export specializes batches of 1, records a batch of 2, and 3 is neither.
_BATCHES = (1, 2, 3)

Outputs = Sequence[Tensor]
Runner = Callable[[Tensor], Outputs]


class Difference(NamedTuple):
    """Largest difference in an output, relative and absolute, and the largest value of the module's."""

    relative: float
    largest: float
    scale: float
    output: str


def verify(
    run: Runner, network: Portable, trained: TrainedTask, batch: int | None, tolerance: float
) -> list[str]:
    """Compare on noise and on validation images, or on random ones where there are none.

    Args:
        run: the exported network.
        network: the part of the module that it was exported from.
        trained: whose validation images are used.
        batch: the only batch size that it accepts; None for any.
        tolerance: largest difference relative to the largest value; the measured ones are below 1e-5.

    Returns:
        A line for noise and one for images with the largest difference.

    Raises:
        UserError: a difference is above the tolerance, or NaN.
    """
    name, images_BCHW = _images(trained, network)
    parts = list(images_BCHW.split(batch or max(_BATCHES)))
    if batch:  # fill up the last batch
        parts = [part[torch.arange(batch) % len(part)] for part in parts]
    noise = [network.batch(count, seed=count) for count in ([batch] if batch else _BATCHES)]
    lines = []
    for what, batches in (("noise", noise), (name, parts)):
        found = _difference(network, run, batches)
        line = f"{what}: {found.largest:.1e} of {found.scale:.3g} ({found.output})"
        if not found.relative <= tolerance:
            raise UserError(
                f"differs from the module on {line}; {tolerance:.0e} of it are allowed (--tolerance); "
                "nothing was written",
                key="--to",
            )
        lines.append(f"largest difference from the module on {line}")
    return lines


def as_outputs(output: object) -> Outputs:
    """A network's output as a list of tensors."""
    return [output] if isinstance(output, Tensor) else list(output)  # type: ignore[call-overload]


def _images(trained: TrainedTask, network: Portable) -> tuple[str, Tensor]:
    """A name for the images and the images (B, C, H, W): validation images, else blobs of random colour."""
    if trained.data is not None:
        try:
            shown = [
                F.interpolate(image[None].float(), network.size, mode="bilinear", antialias=True)
                for _, image in validation_images(trained.data, _IMAGES)
            ]
        except UserError:
            shown = []
        if shown and shown[0].shape[1] == network.channels:
            return f"{len(shown)} validation images", torch.cat(shown)
    coarse_BCHW = torch.randn(_IMAGES, network.channels, 4, 4, generator=torch.Generator().manual_seed(1))
    images_BCHW = F.interpolate(coarse_BCHW, network.size, mode="bicubic")
    return f"{_IMAGES} random images (no validation data)", images_BCHW


def _difference(network: Portable, run: Runner, batches: Sequence[Tensor]) -> Difference:
    """In the output where it is largest, relative to the output's largest value."""
    largest, scales = [0.0] * len(network.outputs), [0.0] * len(network.outputs)
    for images_BCHW in batches:
        with torch.no_grad():
            expected = as_outputs(network.network(images_BCHW))
        found = run(images_BCHW)
        shapes = [[tuple(value.shape) for value in outputs] for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            return Difference(math.inf, math.inf, 1.0, f"shapes {shapes[1]} instead of {shapes[0]}")
        for i, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
            if ours.numel():
                apart = float((ours.double() - theirs.double()).abs().max())
                largest[i] = apart if math.isnan(apart) else max(largest[i], apart)
                scales[i] = max(scales[i], float(ours.double().abs().max()))
    each = [
        Difference(apart / scale if scale else apart, apart, scale, output)
        for output, apart, scale in zip(network.outputs, largest, scales, strict=True)
    ]
    return max(each, key=lambda one: math.inf if math.isnan(one.relative) else one.relative)
