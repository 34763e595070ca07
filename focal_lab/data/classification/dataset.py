"""Classified images of any source, decoded and augmented when they are loaded.

Shape suffixes: B batch, C channels, H W size in px.
"""

import random
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.classification.random_erasing import draw_rectangle
from focal_lab.data.classification.samplers import NOTHING, draw_from, drawing_apart
from focal_lab.data.loading.collate import LabelledItem
from focal_lab.data.loading.decode import decode, to_rgb
from focal_lab.data.loading.unreadable import Unreadable
from focal_lab.data.sources.image_source import UNKNOWN, ImageSource
from focal_lab.errors import UserError

_ATTEMPTS = 1000  # to find a readable image


class ClassifiedImages(Dataset[LabelledItem]):
    """Items are bytes, uint8 (C, H, W), the label, and in training with random erasing its rectangle.

    An unreadable image is replaced in training by a random one, and in evaluation by a black one with the
    label -1, which is not counted. The same stands for NOTHING.

    Args:
        source: of the images.
        transform: from an RGB image to bytes, uint8 (3, S, S).
        shape: of an item's bytes: (C, S, S), of which the first C channels are taken.
        training: whether the items are for training.
        erasing: probability of random erasing.
        upright: whether to follow EXIF orientations.
        max_unreadable: how many images may be unreadable.
    """

    def __init__(
        self,
        source: ImageSource,
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

    def __getitem__(self, draw: int | tuple[int, int]) -> LabelledItem:
        """An item; a `Draw` augments it by its seed, a plain index by the process's random numbers."""
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[int | tuple[int, int]]) -> list[LabelledItem]:
        """The items of a batch, as a DataLoader asks for them."""
        plain = [draw for draw in draws if not isinstance(draw, tuple)]
        if plain:
            return [self._item(index) for index in plain]
        with drawing_apart():
            return [self._drawn(*draw) for draw in draws if isinstance(draw, tuple)]

    def _drawn(self, index: int, seed: int) -> LabelledItem:
        draw_from(seed)
        return self._item(index)

    def _item(self, index: int) -> LabelledItem:
        image = None if index == NOTHING else self._read(index)
        if image is None and self.training:
            image, index = self._another()
        if image is None:
            return torch.zeros(self.shape, dtype=torch.uint8), UNKNOWN
        label, pixels = int(self.source.labels[index]), self.transform(image)[: self.shape[0]]
        if self.training and self.erasing:
            return pixels, label, draw_rectangle(self.erasing, *self.shape[1:])
        return pixels, label

    def _another(self) -> tuple[Image.Image, int]:
        for _ in range(_ATTEMPTS):
            index = random.randrange(len(self))
            image = self._read(index)
            if image is not None:
                return image, index
        raise UserError(
            f"{_ATTEMPTS} random images of {len(self)} cannot be read", key="data.init_args.max_unreadable"
        )

    def _read(self, index: int) -> Image.Image | None:
        try:
            found = self.source.read(index)
            return decode(found, upright=self.upright) if isinstance(found, bytes) else to_rgb(found)
        except Exception as error:  # what Pillow raises for damaged files depends on the format
            instead = "another one takes its place" if self.training else "it is not evaluated"
            self.unreadable.add(index, self.source.name(index), error, instead)
            return None
