"""Which pictures `focal-lab predict CHECKPOINT IMAGES...` is about, and how they become batches.

Shape suffixes: B batch, C channels, H W picture.
"""

import glob
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
from focal_lab.tasks.class_names import Classes
from focal_lab.tools.trained.preprocessing import Preprocessing

_MOST_WORKERS = 8

# Pictures (B, C, H, W) that could be read, their numbers, and the numbers of all that were to be read.
Squares = tuple[Tensor, list[int], list[int]]


def find_pictures(names: Sequence[str]) -> list[Path]:
    """The picture files that names mean, in their order.

    Args:
        names: files; folders, of which every picture below is taken, by name; and patterns such as "*.jpg".
            A file that is named itself is taken whatever it is called; one that is named twice, once.

    Raises:
        UserError: there is no such thing, a folder has no picture in it, or a pattern matches none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += _pictures_below(path)
        elif glob.has_magic(name):
            matched = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            found += _matched(name, matched)
        else:
            raise UserError("there is no such picture or folder", file=name)
    # by their whole paths: a folder may be named as such, and from here
    return list({os.path.abspath(file): file for file in reversed(found)}.values())[::-1]


def default_workers(batches: int) -> int:
    """Processes that read pictures: one core is left to the network, and no process to read nothing."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(_MOST_WORKERS, cores - 1, batches - 1))


class NamedPictures(LightningDataModule):
    """Picture files without labels, for `Trainer.predict`.

    Args:
        files: what to predict.
        shown: what is done to a picture.
        classes: of the network.
        batch_size: pictures per batch.
        workers: processes that read pictures.

    Attributes:
        predict_files: what callbacks call the pictures by.
        mean: what callbacks that draw add again, and `std` what they multiply by.
    """

    def __init__(
        self, files: Sequence[Path], shown: Preprocessing, classes: Classes, batch_size: int, workers: int
    ) -> None:
        super().__init__()
        self.predict_files, self.shown = list(files), shown
        self.mean, self.std = shown.mean, shown.std
        self.class_names, self.category_ids = classes.names, classes.category_ids
        self.batch_size, self.workers = batch_size, workers

    def predict_dataloader(self) -> DataLoader[Any]:
        """`Squares` where all pictures get one size; else the lists of detection and segmentation."""
        squares = self.shown.size is not None
        return DataLoader(
            _Files(self.predict_files, self.shown),
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_squares if squares else _as_lists,
        )


class _Files(Dataset[tuple[int, Tensor | None]]):
    """An item is the picture's number and the normalised picture; None for one that cannot be read."""

    def __init__(self, files: Sequence[Path], shown: Preprocessing) -> None:
        self.files, self.shown = files, shown

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None]:
        try:
            return index, self.shown.read(self.files[index])
        except UserError:
            return index, None


def _as_squares(items: Sequence[tuple[int, Tensor | None]]) -> Squares:
    there = [(number, picture) for number, picture in items if picture is not None]
    pictures = torch.stack([picture for _, picture in there]) if there else torch.empty(0)
    return pictures, [number for number, _ in there], [number for number, _ in items]


def _as_lists(items: Sequence[tuple[int, Tensor | None]]) -> Any:
    return as_lists(
        [
            None if picture is None else (picture, {"image_id": torch.tensor(number)})
            for number, picture in items
        ]
    )


def _matched(pattern: str, matched: Sequence[Path]) -> list[Path]:
    """The images among what a pattern matches; the rest is named in a warning.

    Raises:
        UserError: there are none.
    """
    left, files = LeftOut(), []
    for path in matched:
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


def _pictures_below(folder: Path) -> list[Path]:
    left = LeftOut()
    files = sorted(folder / name for name in images_below(folder, left))
    if not files:
        raise UserError(no_images(left), file=folder)
    left.warn(folder)
    return files
