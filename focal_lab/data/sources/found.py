"""Pictures that were found, before it is known which label each class has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focal_lab.data.sources.base import Source
from focal_lab.errors import UserError

# How splits are called; the first is ours, the others are Hugging Face's and common ones.
CALLED = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
ROOT_KEY = "data.init_args.root"


# ImageNet's largest version has 21,841; a label far above is a mistake, and would take all memory
_MOST_CLASSES = 1_000_000


def numbers_to(last: int, where: Path) -> list[str]:
    """Names of classes that are called by their numbers, from 0.

    Raises:
        UserError: there are too many.
    """
    if last >= _MOST_CLASSES:
        raise UserError(f"has the label {last}; up to {_MOST_CLASSES - 1} can be read", file=where)
    return [str(number) for number in range(last + 1)]


@dataclass(frozen=True)
class Found(ABC):
    """The pictures of a split.

    Attributes:
        where: what to call it in a message.
        classes: names of the classes that are there, in their order.
    """

    where: Path
    classes: Sequence[str]

    @property
    def fixed(self) -> bool:
        """Whether the files themselves number the classes, so that other splits must number them alike."""
        return False

    @abstractmethod
    def source(self, classes: Sequence[str]) -> Source:
        """The pictures, with labels that count along `classes`.

        Raises:
            UserError: there are none.
        """
