"""The images of `focal-lab predict CHECKPOINT IMAGES...`, and their batches.

Shape suffixes: B batch, C channels, H W image.
"""

import glob
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.loading.collate import as_lists
from focal_lab.data.loading.list_files import (
    IMAGES,
    JUNK,
    LeftOut,
    images_below,
    is_image,
    is_junk,
    no_images,
)
from focal_lab.errors import UserError
from focal_lab.sweep.engine.slots import cores
from focal_lab.tools.trained.preprocessing import Preprocessing

_MOST_WORKERS = 8

# Images (B, C, H, W) that could be read, their numbers, and the numbers of all that were requested.
Squares = tuple[Tensor, list[int], list[int]]


def find_images(names: Sequence[str]) -> list[Path]:
    """The image files that names stand for, in their order.

    Args:
        names: files, whatever they are called; folders, of which every image below is taken, sorted; and
            patterns such as "*.jpg". A file that is named twice is taken once.

    Raises:
        UserError: there is no such file, a folder has no image, or a pattern matches none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += _images_below(path)
        elif glob.has_magic(name):
            found += _matched(name)
        else:
            raise UserError("there is no such image or folder", file=name)
    # by absolute path: a folder may be named in several ways
    return list({os.path.abspath(file): file for file in reversed(found)}.values())[::-1]


def default_workers(images: int, batch_size: int) -> int:
    """Processes that read images: one core is left to the network, and every process gets a batch."""
    return max(0, min(_MOST_WORKERS, cores() - 1, math.ceil(images / batch_size) - 1))


class NamedImages(LightningDataModule):
    """Image files without labels, for `Trainer.predict`."""

    def __init__(
        self, files: Sequence[Path], preprocessing: Preprocessing, batch_size: int, workers: int
    ) -> None:
        super().__init__()
        # names that the tasks' callbacks read
        self.predict_files, self.mean, self.std = list(files), preprocessing.mean, preprocessing.std
        self.preprocessing, self.batch_size, self.workers = preprocessing, batch_size, workers

    def predict_dataloader(self) -> DataLoader[Any]:
        """`Squares` if all images get one size; else the lists of detection and segmentation."""
        return DataLoader(
            _ImageFiles(self.predict_files, self.preprocessing),
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_lists if self.preprocessing.size is None else _as_squares,
        )

    def why_unreadable(self, number: int) -> str:
        """Why an image cannot be read; it is read again, because worker processes do not report it."""
        try:
            self.preprocessing.read(self.predict_files[number])
        except UserError as error:
            return " ".join(error.message.split())
        return "could not be read, but can now"


class _ImageFiles(Dataset[tuple[int, Tensor | None]]):
    """An item is the image's number and the normalized image; None if it cannot be read."""

    def __init__(self, files: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.files, self.preprocessing = files, preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None]:
        try:
            return index, self.preprocessing.read(self.files[index])
        except UserError:
            return index, None


def _as_squares(items: Sequence[tuple[int, Tensor | None]]) -> Squares:
    read = {number: image for number, image in items if image is not None}
    images = torch.stack(list(read.values())) if read else torch.empty(0)
    return images, list(read), [number for number, _ in items]


def _as_lists(items: Sequence[tuple[int, Tensor | None]]) -> Any:
    return as_lists(
        [None if image is None else (image, {"image_id": torch.tensor(number)}) for number, image in items]
    )


def _matched(pattern: str) -> list[Path]:
    """The images that a pattern matches; the other matches are named in a warning."""
    left, files = LeftOut(), []
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if any(map(is_junk, path.parts)) and ".." not in path.parts:
            left.add(JUNK, str(path))
        elif path.is_dir():
            left.add("folders", str(path))
        elif is_image(path.name):
            files.append(path)
        else:
            left.add_file(str(path))
    if not files:
        more = f"; found {left}" if left.kinds else ""
        raise UserError(f"matches no image ({', '.join(IMAGES)}){more}", file=pattern)
    left.warn(Path(pattern))
    return files


def _images_below(folder: Path) -> list[Path]:
    left = LeftOut()
    files = sorted(folder / name for name in images_below(folder, left))
    if not files:
        raise UserError(no_images(left), file=folder)
    left.warn(folder)
    return files
