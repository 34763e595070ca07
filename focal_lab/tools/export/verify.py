"""Compares an exported network with the module that it was exported from.

Shape suffixes: B batch, C channels, H W image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.errors import UserError
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import TrainedTask
from focal_lab.tools.trained.preprocessing import validation_images

# Allowed rounding error relative to the largest value; the measured errors are below 1e-5.
TOLERANCE = 1e-4
_IMAGES = 8
# torch.export specializes batches of 1, records a batch of 2, and 3 is neither.
_BATCHES = (1, 2, 3)

Outputs = Sequence[Tensor]
Runner = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Difference:
    """Largest difference between two networks on some images, in the output where it is largest.

    Attributes:
        images: what the images were.
        output: name of the output.
        largest: largest absolute difference.
        scale: largest absolute value of the module's output.
    """

    images: str
    output: str
    largest: float
    scale: float

    @property
    def relative(self) -> float:
        """The difference relative to the largest value."""
        return self.largest / self.scale if self.scale else self.largest

    def __str__(self) -> str:
        return f"{self.images}: {self.largest:.1e} of {self.scale:.3g} ({self.output})"


def as_outputs(output: object) -> Outputs:
    """A network's output as a list of tensors."""
    return [output] if isinstance(output, Tensor) else list(output)  # type: ignore[call-overload]


def compare(run: Runner, network: Portable, trained: TrainedTask, batch: int | None) -> list[Difference]:
    """Differences on noise and on validation images, or on random ones where there are none.

    Args:
        run: the exported network.
        network: the part of the module that it was exported from.
        trained: whose validation images are used.
        batch: the only batch size that it accepts; None for any.
    """
    name, images_BCHW = _images(trained, network)
    step = batch or max(_BATCHES)
    noise = [network.batch(count, seed=count) for count in ([batch] if batch else _BATCHES)]
    parts = list(images_BCHW.split(step))
    if batch:  # fill up the last batch
        parts = [part[torch.arange(batch) % len(part)] for part in parts]
    return [_difference("noise", network, run, noise), _difference(name, network, run, parts)]


def check(differences: Sequence[Difference], tolerance: float = TOLERANCE) -> None:
    """Refuse differences that rounding does not explain.

    Raises:
        UserError: a difference is above the tolerance, or NaN.
    """
    for difference in differences:
        if not difference.relative <= tolerance:
            raise UserError(
                f"differs from the module on {difference}; {tolerance:.0e} of it are allowed (--tolerance); "
                "nothing was written",
                key="--to",
            )


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


def _difference(name: str, network: Portable, run: Runner, batches: Sequence[Tensor]) -> Difference:
    largest, scales = [0.0] * len(network.outputs), [0.0] * len(network.outputs)
    for images_BCHW in batches:
        with torch.no_grad():
            expected = as_outputs(network.network(images_BCHW))
        found = run(images_BCHW)
        shapes = [[tuple(value.shape) for value in outputs] for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            return Difference(name, f"shapes {shapes[1]} instead of {shapes[0]}", math.inf, 1.0)
        for i, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
            if ours.numel():
                apart = float((ours.double() - theirs.double()).abs().max())
                largest[i] = apart if math.isnan(apart) else max(largest[i], apart)
                scales[i] = max(scales[i], float(ours.double().abs().max()))
    each = [Difference(name, *values) for values in zip(network.outputs, largest, scales, strict=True)]
    return max(each, key=lambda one: math.inf if math.isnan(one.relative) else one.relative)
