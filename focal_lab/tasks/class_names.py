"""Names and category ids of a data set's classes."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Classes:
    """Names of the classes and their category ids in annotation files, in the order of the labels.

    Attributes:
        names: empty where they are unknown; a class is then called by its number.
        category_ids: empty where the label itself is the id.
    """

    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: Any) -> "Classes":
        """Those of a data module."""
        return cls(getattr(data, "class_names", None) or (), getattr(data, "category_ids", None) or ())

    def __post_init__(self) -> None:
        # a checkpoint may return lists
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "category_ids", tuple(self.category_ids))

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.names[label] if label < len(self.names) else str(label)

    def category_id(self, label: int) -> int:
        """The id of a class in an annotation file."""
        return self.category_ids[label] if label < len(self.category_ids) else label

    @property
    def listed(self) -> list[str]:
        """Id, if there is one, and name of each class."""
        if not self.category_ids:
            return list(self.names)
        return [f"{number} {name}" for number, name in zip(self.category_ids, self.names, strict=True)]
