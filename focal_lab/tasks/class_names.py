"""What the classes of a data set are called."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Classes:
    """Names and annotation files' category ids of the classes, in the order of the labels.

    Attributes:
        names: empty where they are not known; then a class is called by its number.
        category_ids: empty where the label itself is the id.
    """

    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: Any) -> "Classes":
        """Those of a data module."""
        names, numbers = getattr(data, "class_names", None), getattr(data, "category_ids", None)
        return cls(tuple(names or ()), tuple(numbers or ()))

    def __post_init__(self) -> None:
        # a checkpoint may give lists back
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "category_ids", tuple(self.category_ids))

    def name(self, label: int) -> str:
        """What to call a class."""
        return self.names[label] if label < len(self.names) else str(label)

    def category_id(self, label: int) -> int:
        """Its id in an annotation file."""
        return self.category_ids[label] if label < len(self.category_ids) else label

    @property
    def listed(self) -> list[str]:
        """Id, where there is one, and name of each class."""
        if not self.category_ids:
            return list(self.names)
        return [f"{number} {name}" for number, name in zip(self.category_ids, self.names, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint; the keyword arguments that make it again."""
        return {"names": self.names, "category_ids": self.category_ids}
