"""Reads masks of class numbers, and counts the pixels of each class.

Shape suffixes: H W size of an image in px, L labels.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focal_lab.data.classification.class_names import some
from focal_lab.errors import UserError

# Pixels are listed for at most this many classes.
_LISTED = 10


@dataclass(frozen=True)
class MaskClasses:
    """What the numbers in masks mean.

    Attributes:
        names: of the classes, in the order of their labels.
        ignored: number, and label, of pixels that do not count.
        first: number of the first class; lower ones do not count either.

    Raises:
        UserError: the ignored number is that of a class.
    """

    names: tuple[str, ...]
    ignored: int
    first: int

    def __post_init__(self) -> None:
        if self.ignored < len(self.names) + self.first:
            hint = "" if self.ignored or self.first else "; where 0 means no class: reduce_zero_label"
            raise UserError(
                f"{self.ignored} is among the numbers of the {len(self.names)} classes (use "
                f"{max(255, len(self.names) + self.first)}, or another one that no class has{hint})",
                key="data.init_args.ignore_index",
            )

    def labels(self, file: Path | None) -> NDArray[Any]:
        """Read a mask: labels from 0, uint8 or int32, shape (H, W).

        Raises UserError if it cannot be read, or has a number in it that is not a class.
        """
        assert file is not None
        try:
            with Image.open(file) as opened:
                numbers_HW = np.array(opened)
        except Exception as error:  # what Pillow raises for damaged files depends on the format
            raise UserError(f"cannot be read as a mask ({error})", file=file) from error
        if numbers_HW.min(initial=0) < 0:
            reason = f"has the value {numbers_HW.min()}, but classes are numbered from {self.first}"
            raise UserError(reason, file=file)
        counts, end = np.bincount(numbers_HW.ravel(), minlength=1), len(self.names) + self.first
        present = np.flatnonzero(counts)
        wrong = [number for number in present.tolist() if number != self.ignored and number >= end]
        if wrong:
            more = f" or {self.ignored}" if self.ignored >= end else ""
            raise UserError(
                f"has the value {wrong[0]} in {counts[wrong[0]]} pixels, and there are {len(self.names)} "
                f"classes (use {self.first} to {end - 1}{more}; name more classes, or set "
                "data.init_args.ignore_index to a number that does not count)",
                file=file,
            )
        table = np.arange(max(int(present.max(initial=0)), self.ignored) + 1) - self.first
        table[: self.first], table[self.ignored] = self.ignored, self.ignored
        kind = np.uint8 if max(self.ignored, len(self.names)) < 256 else np.int32
        return np.asarray(table.astype(kind)[numbers_HW])

    def count(self, label_HW: NDArray[Any]) -> NDArray[np.int64]:
        """Pixels of each label in a mask, shape (L,), including the ignored one."""
        return np.bincount(label_HW.ravel(), minlength=self.ignored + 1)

    def check(self, count_L: NDArray[np.int64], folder: Path, option: str, masks: int) -> None:
        """Warn of classes that never occur in `masks` masks of a folder, which an option names.

        `count_L` is `count` summed over these masks. Raises UserError if every pixel is ignored.
        """
        per_class = count_L[: len(self.names)].tolist()
        left_out = int(count_L[self.ignored])
        meaning = f"0 or {self.ignored}" if self.first else str(self.ignored)
        if not any(per_class):
            raise UserError(
                f"all {left_out} pixels of {masks} masks are {meaning}, which is ignored (change their "
                "numbers, ignore_index or reduce_zero_label)",
                file=folder,
                key=f"data.init_args.{option}",
            )
        missing = [name for name, count in zip(self.names, per_class, strict=True) if not count]
        if not missing:
            return
        listed = [f"{name} {count}" for name, count in zip(self.names, per_class, strict=True)]
        pixels = ", ".join([*(listed if len(listed) <= _LISTED else []), f"ignored ({meaning}) {left_out}"])
        warnings.warn(
            f"{folder}: no pixel of {masks} masks is of the class {some(missing)} ({len(missing)} of "
            f"{len(self.names)}); pixels: {pixels}",
            stacklevel=2,
        )
