"""Random erasing (Zhong et al. 2020, arXiv 1708.04896): a rectangle of an image is replaced by noise.

As timm's `RandomErasing` in its mode "pixel", but in two parts: the rectangle is drawn with the rest of an
image's augmentation, and the noise is filled in on the batch's device. Both depend only on the image's own
seed, not on the process that loads it or trains on it.

Shape suffixes: B batch, C channels, H W size in px.
"""

import math
import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# timm's ranges: share of the image's area, and height over width
_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)
_ATTEMPTS = 10

NOT_ERASED = (0, 0, 0, 0, 0)


def draw_rectangle(probability: float, height: int, width: int) -> tuple[int, int, int, int, int]:
    """Draw with Python's random numbers what to erase from an image of height x width px.

    Returns:
        Top, left, height, width and the seed of the noise; `NOT_ERASED` for nothing.
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


def erase(images_BCHW: Tensor, rectangles_B5: NDArray[np.int64]) -> Tensor:
    """Fill the rectangles of `draw_rectangle` in normalised images, in place, with normal noise."""
    generator = torch.Generator(images_BCHW.device)
    for image_CHW, rectangle in zip(images_BCHW, rectangles_B5.tolist(), strict=True):
        top, left, rows, columns, seed = rectangle
        if rows and columns:
            generator.manual_seed(seed)
            noise = images_BCHW.new_empty(len(image_CHW), rows, columns).normal_(generator=generator)
            image_CHW[:, top : top + rows, left : left + columns] = noise
    return images_BCHW
