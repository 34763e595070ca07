"""The classes of a task: names and number, which is that of the data unless the configuration gives one."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from focal_lab.data.classification.class_names import some
from focal_lab.errors import UserError
from focal_lab.utils.lazy_imports import find_class

_KEY = "model.num_classes"


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
        names, ids = getattr(data, "class_names", None) or (), getattr(data, "category_ids", None) or ()
        return cls(tuple(names), tuple(ids))

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


def fill_in(model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Replace `num_classes: null` in a configured model by the number of its data, instantiated for this.

    Raises:
        UserError: the data has no number of classes, or cannot be instantiated or read.
    """
    options: MutableMapping[str, Any] = model.get("init_args") or {}
    if options.get("num_classes", 0) is not None:
        return
    arguments = dict(data.get("init_args") or {}) | dict(data.get("dict_kwargs") or {})
    try:
        classes = getattr(find_class(data["class_path"])(**arguments), "num_classes", None)
    except (TypeError, KeyError) as error:
        raise UserError(
            f"is not set, and cannot be taken from the data: {error} (set it)", key=_KEY
        ) from error
    options["num_classes"] = known(classes)


def known(num_classes: int | None) -> int:
    """The number.

    Raises:
        UserError: it is None.
    """
    if num_classes is None:
        raise UserError(
            "is not known: null takes it from data that has `num_classes`, and only in a command (set it)",
            key=_KEY,
        )
    return num_classes


def check_count(num_classes: int, data: Any) -> None:
    """Refuse data with more or fewer classes than the network.

    Raises:
        UserError: the numbers differ.
    """
    classes = getattr(data, "num_classes", None)
    if classes is None or classes == num_classes:
        return
    names = getattr(data, "class_names", None)
    named = f" ({some(names)})" if names and isinstance(names, tuple | list) else ""
    background = num_classes == classes + 1 and not (names and "background" in names)
    hint = ": background is not counted" if background else ""
    raise UserError(
        f"{num_classes} is not the number of classes of the data, {classes}{named} "
        f"(use {classes}, or null to take it from the data{hint})",
        key=_KEY,
    )


def check_labels(batch: Any, name: str, num_classes: int, ignored: int | None = None) -> None:
    """Refuse labels, called `name`, in the targets of a batch for which the network has no output.

    Raises:
        UserError: there is one, other than `ignored`.
    """
    for target in batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else ():
        if name not in target:
            continue
        labels = target[name]
        wrong = (labels < 0) | (labels >= num_classes)
        if ignored is not None:
            wrong &= labels != ignored
        if wrong.any():
            more = "" if ignored is None else f", or {ignored} for none"
            raise UserError(
                f"image {int(target.get('image_id', -1))} has the label {int(labels[wrong][0])}; the "
                f"{num_classes} classes of model.num_classes are 0 to {num_classes - 1}{more}, background of "
                "a detector not counted",
                key="data",
            )
