"""Collates items into batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

Target = dict[str, Tensor]
Batch = tuple[list[Tensor], list[Target]]
# bytes of an image, its label and, for random erasing, a rectangle
LabelledItem = tuple[Tensor, int] | tuple[Tensor, int, tuple[int, ...]]


def as_lists(items: Sequence[tuple[Tensor, Target] | None]) -> Batch:
    """Lists of images and of targets, which differ in size; None is left out."""
    present = [item for item in items if item is not None]
    return [image for image, _ in present], [target for _, target in present]


def as_tensors(items: Sequence[LabelledItem]) -> list[Any]:
    """Bytes, uint8 (B, C, H, W), labels, int64 (B,), and perhaps rectangles, int64 (B, 5).

    The rectangles are a NumPy array: that stays on the CPU, where it is read.
    """
    images, labels = default_collate([(item[0], item[1]) for item in items])
    if len(items[0]) == 2:
        return [images, labels]
    rectangles: NDArray[np.int64] = np.array([item[2] for item in items], np.int64)  # type: ignore[misc]
    return [images, labels, rectangles]
