"""How much of the picture one window of a stage sees in one block (pure Python).

Sizes are (height, width) in pixels of the input. A token stands for the square of input pixels that it
was embedded from, one stride wide. What a token took up in earlier blocks, or by overlapping patch
embeddings, comes on top: these numbers are what attention adds at least.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focal_lab.backbones.options import FocalOptions, Size, StageConfig, image_size


@dataclass(frozen=True)
class ReceptiveField:
    """What a window sees, cut to the picture.

    Attributes:
        fine: the window with the ring around it.
        coarse: for each coarse level, the tokens that the region's pooled tokens summarise.
    """

    fine: Size
    coarse: tuple[Size, ...]

    def as_dict(self) -> Mapping[str, Any]:
        """Lists of numbers, for JSON."""
        return {"fine": list(self.fine), "coarse": [list(size) for size in self.coarse]}


def receptive_field(stage: StageConfig, options: FocalOptions) -> ReceptiveField:
    """What one window of a stage sees in one block.

    A window at the border sees less (or, where the map wraps around, the opposite edge instead).
    """
    stride = options.patch_size * 2 ** (stage.stage - 1)
    picture = image_size(options.img_size)

    def pixels(tokens: Size) -> Size:
        return min(tokens[0] * stride, picture[0]), min(tokens[1] * stride, picture[1])

    fine = stage.window[0] + 2 * stage.expand[0], stage.window[1] + 2 * stage.expand[1]
    pooled = (
        (level.region[0] * level.pool_size[0], level.region[1] * level.pool_size[1]) for level in stage.levels
    )
    return ReceptiveField(pixels(fine), tuple(pixels(tokens) for tokens in pooled))
