"""Holds what was exported against the module that it was exported from.

Shape suffixes: B batch, C channels, H W picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.errors import UserError
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import Trained
from focal_lab.tools.trained.preprocessing import validation_pictures

# Largest difference that rounding explains, as a share of the largest value; what was measured is below 1e-5.
TOLERANCE = 1e-4
_PICTURES = 8
# Batches that a file for any batch is tried with: one is special to torch.export, and the third is another
# than the one that was recorded.
_BATCHES = (1, 2, 3)

Outputs = Sequence[Tensor]
Runner = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Difference:
    """How far two networks are apart on some pictures, in the output that is the farthest.

    Attributes:
        pictures: what they were.
        output: which output it is.
        largest: largest difference of any of its numbers.
        scale: largest absolute value of it that the module gave.
    """

    pictures: str
    output: str
    largest: float
    scale: float

    @property
    def share(self) -> float:
        """The difference as a share of the largest value."""
        return self.largest / self.scale if self.scale else self.largest

    def __str__(self) -> str:
        return f"{self.pictures}: {self.largest:.1e} of {self.scale:.3g} ({self.output})"


def as_outputs(answer: object) -> Outputs:
    """A network's answer as several tensors."""
    return [answer] if isinstance(answer, Tensor) else list(answer)  # type: ignore[call-overload]


def real_pictures(trained: Trained, made: Portable) -> tuple[str, Tensor]:
    """What pictures to compare on, (B, C, H, W), and what to call them.

    The first of the validation data; where they cannot be read, drawn ones: soft blobs of colour.
    """
    height, width = made.size
    try:
        if trained.data is None:
            raise UserError(trained.trouble or "no data")
        found = [picture for _, picture in validation_pictures(trained.data, _PICTURES)]
        shown = [
            F.interpolate(picture[None].float(), (height, width), mode="bilinear", antialias=True)
            for picture in found
        ]
        if shown and shown[0].shape[1] == made.channels:
            return f"{len(shown)} validation pictures", torch.cat(shown)
    except UserError:
        pass
    coarse_BCHW = torch.randn(_PICTURES, made.channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return f"{_PICTURES} drawn pictures (no validation data)", F.interpolate(
        coarse_BCHW, (height, width), mode="bicubic"
    )


def compare(run: Runner, made: Portable, trained: Trained, batch: int | None) -> list[Difference]:
    """Differences on noise and on real pictures.

    Args:
        run: what was exported.
        made: the module's part that it was exported from.
        trained: whose validation pictures are looked at.
        batch: the only batch that it takes; None for any.
    """
    name, pictures_BCHW = real_pictures(trained, made)
    step = batch or max(_BATCHES)
    noise = [made.batch(count, seed=count) for count in ([batch] if batch else _BATCHES)]
    real = [_filled(part, step if batch else len(part)) for part in pictures_BCHW.split(step)]
    return [_difference("noise", made, run, noise), _difference(name, made, run, real)]


def check(found: Sequence[Difference], tolerance: float = TOLERANCE) -> None:
    """Refuse what differs.

    Raises:
        UserError: a difference is more than rounding explains.
    """
    for difference in found:
        if not difference.share <= tolerance:  # NaN is no small difference
            raise UserError(
                f"computes something else than the module on {difference}; {tolerance:.0e} of it are allowed "
                "(--tolerance); nothing was written",
                key="--to",
            )


def _difference(name: str, made: Portable, run: Runner, batches: Sequence[Tensor]) -> Difference:
    apart, scales = [0.0] * len(made.outputs), [0.0] * len(made.outputs)
    for pictures_BCHW in batches:
        with torch.no_grad():
            expected = as_outputs(made.network(pictures_BCHW))
        found = run(pictures_BCHW)
        shapes = [[tuple(value.shape) for value in outputs] for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            return Difference(name, f"shapes {shapes[1]} instead of {shapes[0]}", float("inf"), 1.0)
        for i, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
            if ours.numel():
                largest = float((ours.double() - theirs.double()).abs().max())
                apart[i] = largest if math.isnan(largest) else max(apart[i], largest)
                scales[i] = max(scales[i], float(ours.double().abs().max()))
    each = [Difference(name, *values) for values in zip(made.outputs, apart, scales, strict=True)]
    return max(each, key=lambda one: math.inf if math.isnan(one.share) else one.share)


def _filled(pictures_BCHW: Tensor, count: int) -> Tensor:
    """Pictures repeated to a batch of that many."""
    return pictures_BCHW[torch.arange(count) % len(pictures_BCHW)]
