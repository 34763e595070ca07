"""Random erasing (Zhong et al. 2020, arXiv 1708.04896): a rectangle of a picture is replaced by noise.

As timm's `RandomErasing` in its mode "pixel", but in two parts: where the rectangle lies is drawn with the
rest of a picture's augmentation, and the noise is filled in wherever the batch is by then. Both depend on the
picture's own seed, so that it does not matter which process prepares or trains on it.

Shape suffixes: B batch, C channels, H W size in px.
"""

import math
import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# timm's ranges: share of the picture's area, and height over width
_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)
_ATTEMPTS = 10

NOT_ERASED = (0, 0, 0, 0, 0)


def draw_rectangle(probability: float, height: int, width: int) -> tuple[int, int, int, int, int]:
    """Where to erase, by Python's random numbers: top, left, height, width, and the seed of the noise.

    Args:
        probability: that anything is erased.
        height: of the picture, px.
        width: of the picture, px.

    Returns:
        `NOT_ERASED` where nothing is.
    """
    if random.random() > probability:
        return NOT_ERASED
    for _ in range(_ATTEMPTS):
        area = random.uniform(*_AREAS) * height * width
        aspect = math.exp(random.uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            return top, left, rows, columns, random.getrandbits(62)
    return NOT_ERASED


def erase(pictures_BCHW: Tensor, rectangles_B5: NDArray[np.int64]) -> Tensor:
    """Fill rectangles of normalised pictures, in place, with normal noise.

    Args:
        pictures_BCHW: on any device.
        rectangles_B5: what `draw_rectangle` returned for each.
    """
    generator = torch.Generator(pictures_BCHW.device)
    channels = pictures_BCHW.shape[1]
    for picture_CHW, rectangle in zip(pictures_BCHW, rectangles_B5.tolist(), strict=True):
        top, left, rows, columns, seed = rectangle
        if rows and columns:
            generator.manual_seed(seed)
            noise = pictures_BCHW.new_empty(channels, rows, columns).normal_(generator=generator)
            picture_CHW[:, top : top + rows, left : left + columns] = noise
    return pictures_BCHW
