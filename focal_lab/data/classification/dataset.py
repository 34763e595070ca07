"""Classified pictures of any source, decoded and augmented when they are asked for.

Shape suffixes: B batch, C channels, H W size in px.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from focal_lab.data.classification.random_erasing import draw_rectangle
from focal_lab.data.classification.samplers import NOTHING, draw_from, drawing_apart
from focal_lab.data.loading.decode import decode, to_rgb
from focal_lab.data.loading.unreadable import Unreadable
from focal_lab.data.sources.base import UNKNOWN, Source
from focal_lab.errors import UserError

Item = tuple[Tensor, int] | tuple[Tensor, int, tuple[int, ...]]
_ATTEMPTS = 1000  # to find a picture that can be read


class ClassPictures(Dataset[Item]):
    """Items are bytes, uint8 (C, H, W), the label, and in training with random erasing its rectangle.

    Instead of a picture that cannot be read training gets another one, by chance, and evaluation a black one
    with the label -1, which counts for nothing. The same stands for NOTHING.

    Args:
        source: where the pictures lie.
        transform: an RGB picture to bytes, uint8 (3, S, S).
        shape: of an item's bytes: (C, S, S), of which the first C channels are taken.
        training: whether another picture takes the place of an unreadable one.
        erasing: probability of random erasing.
        upright: whether pictures are turned as EXIF says.
        max_unreadable: how many may be unreadable.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Image.Image], Tensor],
        shape: tuple[int, int, int],
        *,
        training: bool = False,
        erasing: float = 0.0,
        upright: bool = True,
        max_unreadable: int = 10,
    ) -> None:
        self.source, self.transform, self.shape = source, transform, shape
        self.training, self.erasing, self.upright = training, erasing, upright
        self.unreadable = Unreadable(len(source), max_unreadable)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: int | tuple[int, int]) -> Item:
        """A picture; a `Draw` augments it by its seed, a plain index by the process's random numbers."""
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[int | tuple[int, int]]) -> list[Item]:
        """Those of a batch, as a DataLoader asks for them."""
        plain = [draw for draw in draws if not isinstance(draw, tuple)]
        if plain:
            return [self._item(index) for index in plain]
        with drawing_apart():
            return [self._drawn(*draw) for draw in draws if isinstance(draw, tuple)]

    def _drawn(self, index: int, seed: int) -> Item:
        draw_from(seed)
        return self._item(index)

    def _item(self, index: int) -> Item:
        picture = None if index == NOTHING else self._read(index)
        if picture is None and self.training:
            picture, index = self._another()
        if picture is None:
            return torch.zeros(self.shape, dtype=torch.uint8), UNKNOWN
        label, pixels = int(self.source.labels[index]), self.transform(picture)[: self.shape[0]]
        if self.training and self.erasing:
            return pixels, label, draw_rectangle(self.erasing, *self.shape[1:])
        return pixels, label

    def _another(self) -> tuple[Image.Image, int]:
        for _ in range(_ATTEMPTS):
            index = random.randrange(len(self))
            picture = self._read(index)
            if picture is not None:
                return picture, index
        raise UserError(
            f"of {len(self)} images {_ATTEMPTS} drawn in a row cannot be read",
            key="data.init_args.max_unreadable",
        )

    def _read(self, index: int) -> Image.Image | None:
        try:
            found = self.source.read(index)
            return decode(found, upright=self.upright) if isinstance(found, bytes) else to_rgb(found)
        except Exception as error:
            # what Pillow raises for damage depends on the format
            instead = "another one takes its place" if self.training else "it is not judged"
            self.unreadable.add(index, self.source.name(index), error, instead)
            return None


def collate(items: Sequence[Item]) -> list[Any]:
    """A batch: bytes, uint8 (B, C, H, W), labels, int64 (B,), and perhaps rectangles, int64 (B, 5).

    The rectangles are an array of numpy: that stays on the processor, where it is read.
    """
    pictures, labels = default_collate([(item[0], item[1]) for item in items])
    if len(items[0]) == 2:
        return [pictures, labels]
    rectangles: NDArray[np.int64] = np.array([item[2] for item in items], np.int64)  # type: ignore[misc]
    return [pictures, labels, rectangles]
