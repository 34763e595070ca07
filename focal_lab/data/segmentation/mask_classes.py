"""What masks have in them: pixels of each class, and of none.

Shape suffixes: H W size of an image in px, L labels.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.classification.class_names import some
from focal_lab.errors import UserError

# Pixels of up to so many classes are listed.
_LISTED = 10


@dataclass(frozen=True)
class MaskClasses:
    """The classes that masks should have.

    Attributes:
        names: in the order of the labels.
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

    def count(self, label_HW: NDArray[Any]) -> NDArray[np.int64]:
        """Pixels of each label in a mask, shape (L,); of the ignored one at its own place."""
        return np.bincount(label_HW.ravel(), minlength=self.ignored + 1)

    def check(self, count_L: NDArray[np.int64], folder: Path, key: str, masks: int) -> None:
        """Warn of classes that never occur.

        Args:
            count_L: from `count`, summed over masks.
            folder: of the masks.
            key: the option that names it.
            masks: how many were counted.

        Raises:
            UserError: no pixel is left.
        """
        per_class = count_L[: len(self.names)].tolist()
        left_out = int(count_L[self.ignored])
        meaning = f"0 or {self.ignored}" if self.first else str(self.ignored)
        if not any(per_class):
            raise UserError(
                f"all {left_out} pixels of {masks} masks are {meaning}, which is ignored (change their "
                "numbers, ignore_index or reduce_zero_label)",
                file=folder,
                key=key,
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
