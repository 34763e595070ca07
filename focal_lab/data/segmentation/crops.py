"""Random crops for training segmentation."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

_TRIES = 10


class RandomScaleCrop(v2.Transform):  # type: ignore[misc]
    """Resize an image by a random factor and crop a square, as UPerNet is trained on ADE20K.

    A smaller image is padded with the mean colour, and its mask with the label of pixels that do not count.
    Masks take the nearest label.

    Args:
        size: side of the square, px.
        sides: an image is first fitted to this shorter and longer side.
        factors: range of the random factor on both.
        ignored: label of pixels that do not count.
        most: crops of which one class takes more than this share are drawn again.
        fill: colour of the padding, 0 to 255.
    """

    def __init__(
        self,
        size: int,
        sides: tuple[int, int],
        factors: tuple[float, float],
        ignored: int,
        most: float,
        fill: list[int],
    ) -> None:
        super().__init__()
        self.size, self.sides, self.factors = size, sides, factors
        self.ignored, self.most, self.fill = ignored, most, fill

    def forward(self, image: Any, mask: Any) -> tuple[Any, Any]:
        """uint8 (3, H, W) and (H, W) to (3, size, size) and (size, size)."""
        height, width = image.shape[-2:]
        factor = min(self.sides[0] / min(height, width), self.sides[1] / max(height, width))
        factor *= self.factors[0] + (self.factors[1] - self.factors[0]) * float(torch.rand(()))
        new = [max(1, round(height * factor)), max(1, round(width * factor))]
        image = v2.functional.resize(image, new, antialias=True)
        mask = v2.functional.resize(mask, new, interpolation=v2.InterpolationMode.NEAREST)
        for attempt in range(_TRIES):
            top, left = (int(torch.randint(max(0, length - self.size) + 1, ())) for length in new)
            cut = mask[top : top + self.size, left : left + self.size]
            if attempt == _TRIES - 1 or self._varied(cut):
                break
        box = [top, left, min(self.size, new[0] - top), min(self.size, new[1] - left)]
        image, mask = v2.functional.crop(image, *box), v2.functional.crop(mask, *box)
        around = [0, 0, self.size - box[3], self.size - box[2]]
        return (
            v2.functional.pad(image, around, fill=self.fill),
            v2.functional.pad(mask, around, fill=self.ignored),
        )

    def _varied(self, cut_HW: Tensor) -> bool:
        plain_N = cut_HW.as_subclass(Tensor).flatten().long()
        plain_N = plain_N[plain_N != self.ignored]
        if len(plain_N) == 0:
            return False
        return float(torch.bincount(plain_N).max()) / len(plain_N) <= self.most
