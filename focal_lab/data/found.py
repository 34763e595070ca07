"""Pictures that were found, before it is known which label each class has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focal_lab.data.sources import Source

# How splits are called; the first is ours, the others are Hugging Face's and common ones.
CALLED = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
ROOT_KEY = "data.init_args.root"


@dataclass(frozen=True)
class Found(ABC):
    """The pictures of a split.

    Attributes:
        where: what to call it in a message.
        classes: names of the classes that are there, in their order.
    """

    where: Path
    classes: Sequence[str]

    @abstractmethod
    def source(self, classes: Sequence[str]) -> Source:
        """The pictures, with labels that count along `classes`.

        Raises:
            UserError: there are none.
        """
