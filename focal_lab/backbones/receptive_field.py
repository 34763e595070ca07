"""The part of the image that one window of a stage sees in one block (pure Python).

Sizes are (height, width) in pixels of the input. A token stands for the square of pixels that it was embedded
from, one stride wide. Earlier blocks and overlapping patch embeddings add to that: this is what attention
sees at least.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focal_lab.backbones.options import FocalOptions, Size, StageConfig, image_size


@dataclass(frozen=True)
class ReceptiveField:
    """What a window sees, cut to the image: the fine level, and the sub-windows of each coarse level."""

    fine: Size
    coarse: tuple[Size, ...]

    def as_dict(self) -> Mapping[str, Any]:
        """Lists of numbers, for JSON."""
        return {"fine": list(self.fine), "coarse": [list(size) for size in self.coarse]}


def receptive_field(stage: StageConfig, options: FocalOptions) -> ReceptiveField:
    """What one window sees in one block; a window at the border sees less, or the opposite edge."""
    stride = options.patch_size * 2 ** (stage.stage - 1)
    height, width = image_size(options.img_size)

    def pixels(tokens: Size) -> Size:
        return min(tokens[0] * stride, height), min(tokens[1] * stride, width)

    fine = stage.window[0] + 2 * stage.expand[0], stage.window[1] + 2 * stage.expand[1]
    pooled = (
        (level.region[0] * level.pool_size[0], level.region[1] * level.pool_size[1]) for level in stage.levels
    )
    return ReceptiveField(pixels(fine), tuple(pixels(tokens) for tokens in pooled))
